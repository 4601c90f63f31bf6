"""What all of data preparation, training and evaluation use: errors, files, checksums, parquet."""
