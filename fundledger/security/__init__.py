"""Keys and MACs. Imports nothing of ours."""
