"""Code that several data sources share: finding files, sorting them into splits, reading label columns."""
