"""What the file driver is made of: one file for each thing that files must be talked into."""
