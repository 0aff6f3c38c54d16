//! Blocks of object versions kept in memory and, with a directory given, on disk. Knows no S3.
