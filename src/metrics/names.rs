//! The catalogue: every number that the program keeps, with its exported name, unit and meaning.

macro_rules! catalogue {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $exported:literal, $unit:literal;)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(usize)]
        pub enum $name { $($(#[$variant_doc])* $variant),+ }

        impl $name {
            /// Every entry, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The name under which the number is exported.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $exported),+ }
            }

            /// The unit, in CloudWatch's spelling (API reference, MetricDatum).
            pub fn unit(self) -> &'static str {
                match self { $(Self::$variant => $unit),+ }
            }
        }
    };
}

catalogue! {
    /// Numbers that only grow.
    Counter {
        /// Bytes answered to applications.
        BytesRead = "BytesRead", "Bytes";
        /// Bytes taken from applications.
        BytesWritten = "BytesWritten", "Bytes";
        /// Body bytes received from S3.
        S3BytesReceived = "S3BytesReceived", "Bytes";
        /// Body bytes sent to S3.
        S3BytesSent = "S3BytesSent", "Bytes";
        /// Requests sent again after a failure.
        Retries = "Retries", "Count";
        /// Blocks found in a cache.
        CacheHits = "CacheHits", "Count";
        /// Blocks that had to be fetched.
        CacheMisses = "CacheMisses", "Count";
        /// Segments of requests that the disk cache answered.
        DiskCacheHits = "DiskCacheHits", "Count";
        /// Segments of requests that it was asked for and had not, or not all of.
        DiskCacheMisses = "DiskCacheMisses", "Count";
        /// Bytes read from the disk cache and found right.
        DiskCacheBytesRead = "DiskCacheBytesRead", "Bytes";
        /// Bytes written to the disk cache.
        DiskCacheBytesWritten = "DiskCacheBytesWritten", "Bytes";
        /// Blocks that were not written to the disk cache because it did not keep up.
        DiskCacheDropped = "DiskCacheDropped", "Count";
        /// Opens whose reads the kernel answers from the disk cache itself.
        PassthroughOpens = "PassthroughOpens", "Count";
        /// Uploads that failed or conflicted, whose bytes were kept for recovery.
        UploadsKept = "UploadsKept", "Count";
    }
}

catalogue! {
    /// Numbers that go up and down.
    Gauge {
        /// Bytes written by applications and not yet in S3.
        DirtyBytes = "DirtyBytes", "Bytes";
        /// Files with such bytes.
        DirtyFiles = "DirtyFiles", "Count";
        /// Bytes of uploads in flight.
        UploadingBytes = "UploadingBytes", "Bytes";
        /// Open file handles.
        OpenHandles = "OpenHandles", "Count";
        /// What the disk cache takes.
        DiskCacheBytes = "DiskCacheBytes", "Bytes";
        /// Inodes known to the kernel.
        Inodes = "Inodes", "Count";
    }
}

catalogue! {
    /// Durations, kept as histograms.
    Latency {
        /// From a read request of the kernel to its answer.
        Read = "ReadLatency", "Milliseconds";
        /// From a write request to its answer.
        Write = "WriteLatency", "Milliseconds";
        /// The same for lookup, getattr, readdir and the like.
        Metadata = "MetadataLatency", "Milliseconds";
        /// The same for flush and fsync.
        Sync = "SyncLatency", "Milliseconds";
        /// From sending an S3 request to the head of its answer.
        S3FirstByte = "S3FirstByteLatency", "Milliseconds";
    }
}

catalogue! {
    /// Requests to S3 by operation, as the price list groups them.
    RequestKind {
        /// GetObject.
        Get = "GetObject", "Count";
        /// HeadObject.
        Head = "HeadObject", "Count";
        /// ListObjectsV2.
        List = "ListObjectsV2", "Count";
        /// PutObject.
        Put = "PutObject", "Count";
        /// DeleteObject.
        Delete = "DeleteObject", "Count";
        /// DeleteObjects.
        DeleteMany = "DeleteObjects", "Count";
        /// CopyObject.
        Copy = "CopyObject", "Count";
        /// CreateMultipartUpload.
        CreateUpload = "CreateMultipartUpload", "Count";
        /// UploadPart.
        UploadPart = "UploadPart", "Count";
        /// UploadPartCopy.
        CopyPart = "UploadPartCopy", "Count";
        /// CompleteMultipartUpload.
        CompleteUpload = "CompleteMultipartUpload", "Count";
        /// AbortMultipartUpload.
        AbortUpload = "AbortMultipartUpload", "Count";
        /// ListMultipartUploads.
        ListUploads = "ListMultipartUploads", "Count";
        /// HeadBucket.
        HeadBucket = "HeadBucket", "Count";
    }
}
