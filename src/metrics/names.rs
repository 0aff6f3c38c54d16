//! The catalogue: every number that the program keeps, with its exported name, unit and meaning.

macro_rules! catalogue {
    ($(#[$doc:meta])* $name:ident { $($(#[doc = $meaning:literal])+ $variant:ident = $exported:literal, $unit:literal;)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(usize)]
        pub enum $name { $($(#[doc = $meaning])+ $variant),+ }

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

            /// What it means, in a sentence or two.
            pub fn meaning(self) -> &'static str {
                match self { $(Self::$variant => concat!($($meaning),+).trim_ascii()),+ }
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
        /// GETs that were sent a second time because their first byte was late; of both the faster one was taken.
        Hedges = "Hedges", "Count";
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
        /// Written bytes in memory that no object in S3 has yet.
        DirtyBytes = "DirtyBytes", "Bytes";
        /// Files with such bytes.
        DirtyFiles = "DirtyFiles", "Count";
        /// Bytes of uploads in flight.
        UploadingBytes = "UploadingBytes", "Bytes";
        /// Open file handles.
        OpenHandles = "OpenHandles", "Count";
        /// What the disk cache takes.
        DiskCacheBytes = "DiskCacheBytes", "Bytes";
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
        /// From sending an S3 request to the head of its answer; of a late GET that was overtaken by its second, the wait until then.
        S3FirstByte = "S3FirstByteLatency", "Milliseconds";
    }
}

catalogue! {
    /// Numbers that there are once for each operation of S3, with the dimension `Operation`.
    ByKind {
        /// Requests that were sent, repeated ones included.
        Requests = "S3Requests", "Count";
        /// Requests that ended in an error; that an object is not there or has changed is an answer.
        Errors = "S3Errors", "Count";
    }
}

catalogue! {
    /// Numbers that are reckoned from others.
    Derived {
        /// Share of the blocks that were found in a cache; missing when none was asked for.
        CacheHitRatio = "CacheHitRatio", "Percent";
        /// How long the oldest bytes wait that are not in S3; 0 when all are.
        OldestDirtySeconds = "OldestDirtySeconds", "Seconds";
        /// What the requests cost by the price table, in US dollars.
        EstimatedCost = "EstimatedCost", "None";
    }
}

impl Counter {
    /// Whether it is sent to CloudWatch, where each series costs money.
    pub fn is_sent_to_cloudwatch(self) -> bool {
        use Counter::{BytesRead, BytesWritten, Hedges, Retries, S3BytesReceived, S3BytesSent};
        matches!(self, BytesRead | BytesWritten | S3BytesReceived | S3BytesSent | Retries | Hedges)
    }
}

impl Gauge {
    /// Whether it is sent to CloudWatch, where each series costs money.
    pub fn is_sent_to_cloudwatch(self) -> bool {
        matches!(self, Self::DirtyBytes)
    }
}

/// `S3BytesReceived` as `s3_bytes_received`, the way in which Prometheus spells names.
pub fn snake_case(name: &str) -> String {
    let mut snake = String::with_capacity(name.len() + 4);
    let mut before: Option<char> = None;
    for letter in name.chars() {
        let begins =
            letter.is_ascii_uppercase() && before.is_some_and(|it| it.is_ascii_lowercase() || it.is_ascii_digit());
        if begins {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
        before = Some(letter);
    }
    snake
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
