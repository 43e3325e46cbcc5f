"""What every database of ours needs: statements kept in files, and schemas that grow by numbered ones."""
