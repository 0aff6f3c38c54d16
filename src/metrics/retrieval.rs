//! The storage classes whose objects cost more to read than those of S3 Standard, and what was read of each.

/// A storage class that is billed for what is read of it: by the gigabyte, by a dearer request, or both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(usize)]
pub enum StorageClass {
    /// Standard, infrequent access.
    StandardIa,
    /// One zone, infrequent access.
    OneZoneIa,
    /// Glacier instant retrieval.
    GlacierInstantRetrieval,
    /// Intelligent tiering; reading is not billed by the gigabyte.
    IntelligentTiering,
    /// Glacier flexible retrieval, restored.
    Glacier,
    /// Glacier deep archive, restored.
    DeepArchive,
}

impl StorageClass {
    /// Every class, in the order of their numbers.
    pub const ALL: &'static [Self] = &[
        Self::StandardIa,
        Self::OneZoneIa,
        Self::GlacierInstantRetrieval,
        Self::IntelligentTiering,
        Self::Glacier,
        Self::DeepArchive,
    ];

    /// S3's spelling, as in the header x-amz-storage-class.
    pub fn name(self) -> &'static str {
        match self {
            Self::StandardIa => "STANDARD_IA",
            Self::OneZoneIa => "ONEZONE_IA",
            Self::GlacierInstantRetrieval => "GLACIER_IR",
            Self::IntelligentTiering => "INTELLIGENT_TIERING",
            Self::Glacier => "GLACIER",
            Self::DeepArchive => "DEEP_ARCHIVE",
        }
    }

    /// The class of a spelling; `None` for Standard, which an answer does not name, and for classes that are read at the
    /// price of Standard.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|class| class.name() == name)
    }
}

/// What was read of a class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retrieved {
    /// GETs that were answered.
    pub requests: u64,
    /// Bytes of their bodies.
    pub bytes: u64,
}
