"""A payment fund account system: durable double-entry accounts for merchants' money on stock Postgres."""
