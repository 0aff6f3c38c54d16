//! The price table: a dated one is built in, another can be read from a file (TOML).

use serde::Deserialize;

use crate::metrics::StorageClass;

/// Prices in US dollars, without those of storage and transfer.
#[derive(Clone, Debug, PartialEq)]
pub struct PriceTable {
    /// When the prices held, such as `2026-11`.
    pub dated: String,
    /// Where they hold.
    pub region: String,
    /// One PUT, COPY, POST or LIST.
    pub write_usd: f64,
    /// One GET or HEAD.
    pub read_usd: f64,
    /// One DELETE or AbortMultipartUpload.
    pub delete_usd: f64,
    classes: [ClassPrice; StorageClass::ALL.len()],
}

/// What reading of a storage class costs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClassPrice {
    /// One GET.
    pub read_usd: f64,
    /// A gigabyte (2^30 bytes) retrieved.
    pub gigabyte_usd: f64,
}

impl Default for PriceTable {
    /// us-east-1 as of 2026-11 (aws.amazon.com/s3/pricing, "Requests & data retrievals").
    fn default() -> Self {
        let price = |class| match class {
            StorageClass::StandardIa | StorageClass::OneZoneIa => (0.001, 0.01),
            StorageClass::GlacierInstantRetrieval => (0.01, 0.03),
            StorageClass::IntelligentTiering | StorageClass::Glacier | StorageClass::DeepArchive => (0.0004, 0.0),
        };
        let classes = std::array::from_fn(|class| {
            let (thousand_reads_usd, gigabyte_usd) = price(StorageClass::ALL[class]);
            ClassPrice { read_usd: thousand_reads_usd / 1000.0, gigabyte_usd }
        });
        Self {
            dated: "2026-11".into(),
            region: "us-east-1".into(),
            write_usd: 0.005 / 1000.0,
            read_usd: 0.0004 / 1000.0,
            delete_usd: 0.0,
            classes,
        }
    }
}

/// What is wrong with a price table, in one line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PriceError {
    /// No TOML, or not the right fields.
    #[error("{0}")]
    Syntax(String),
    /// A price below zero, or none at all.
    #[error("{0} is no price: US dollars, zero or more")]
    Price(&'static str),
    /// A storage class that nobody knows.
    #[error("{0:?} is no storage class that bills retrieval: {1}")]
    Class(String, String),
}

/// The file as it is written; see docs/STATUS.md.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    dated: String,
    region: Option<String>,
    requests: Requests,
    #[serde(default)]
    retrieval: std::collections::BTreeMap<String, Retrieval>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Requests {
    write_usd_per_1000: f64,
    read_usd_per_1000: f64,
    #[serde(default)]
    delete_usd_per_1000: f64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Retrieval {
    read_usd_per_1000: Option<f64>,
    usd_per_gb: f64,
}

impl PriceTable {
    /// Reads a table. A class that it does not name is read at the price of Standard.
    ///
    /// # Errors
    /// See [`PriceError`].
    pub fn parse(text: &str) -> Result<Self, PriceError> {
        let file: File = toml::from_str(text).map_err(|error| PriceError::Syntax(one_line(&error)))?;
        let thousand = |name, usd| Ok::<_, PriceError>(checked(name, usd)? / 1000.0);
        let read_usd = thousand("read_usd_per_1000", file.requests.read_usd_per_1000)?;
        let mut classes = [ClassPrice { read_usd, gigabyte_usd: 0.0 }; StorageClass::ALL.len()];
        for (name, price) in file.retrieval {
            let Some(class) = StorageClass::named(&name) else {
                let known: Vec<_> = StorageClass::ALL.iter().map(|class| class.name()).collect();
                return Err(PriceError::Class(name, known.join(", ")));
            };
            let of_class = &mut classes[class as usize];
            of_class.gigabyte_usd = checked("usd_per_gb", price.usd_per_gb)?;
            if let Some(usd) = price.read_usd_per_1000 {
                of_class.read_usd = thousand("read_usd_per_1000", usd)?;
            }
        }
        Ok(Self {
            dated: file.dated,
            region: file.region.unwrap_or_default(),
            write_usd: thousand("write_usd_per_1000", file.requests.write_usd_per_1000)?,
            read_usd,
            delete_usd: thousand("delete_usd_per_1000", file.requests.delete_usd_per_1000)?,
            classes,
        })
    }

    /// What reading of a class costs.
    pub fn class(&self, class: StorageClass) -> ClassPrice {
        self.classes[class as usize]
    }
}

fn checked(name: &'static str, usd: f64) -> Result<f64, PriceError> {
    if usd.is_finite() && usd >= 0.0 { Ok(usd) } else { Err(PriceError::Price(name)) }
}

fn one_line(error: &toml::de::Error) -> String {
    error.message().split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"
        dated = "2027-01"
        region = "eu-central-1"
        [requests]
        write_usd_per_1000 = 0.0054
        read_usd_per_1000 = 0.00043
        [retrieval.STANDARD_IA]
        read_usd_per_1000 = 0.002
        usd_per_gb = 0.02
    "#;

    #[test]
    fn a_table_is_read_from_toml() {
        let table = PriceTable::parse(FILE).unwrap();
        assert_eq!((table.dated.as_str(), table.region.as_str()), ("2027-01", "eu-central-1"));
        assert_eq!(table.write_usd, 0.0054 / 1000.0);
        let ia = ClassPrice { read_usd: 0.002 / 1000.0, gigabyte_usd: 0.02 };
        assert_eq!(table.class(StorageClass::StandardIa), ia);
        let standard = ClassPrice { read_usd: 0.00043 / 1000.0, gigabyte_usd: 0.0 };
        assert_eq!(table.class(StorageClass::GlacierInstantRetrieval), standard);
    }

    #[test]
    fn the_table_of_the_documentation_is_the_one_that_is_built_in() {
        let page = include_str!("../../../docs/STATUS.md");
        let (_, rest) = page.split_once("```toml\n").expect("the page shows a table");
        let (table, _) = rest.split_once("```").expect("the table ends");
        assert_eq!(PriceTable::parse(table), Ok(PriceTable::default()));
    }

    #[test]
    fn what_is_wrong_with_a_table_is_one_line() {
        for (text, said) in [
            (FILE.replace("0.0054", "-1"), "write_usd_per_1000 is no price"),
            (FILE.replace("0.02\n", "nan\n"), "usd_per_gb is no price"),
            (FILE.replace("STANDARD_IA", "STANDARD_AI"), "\"STANDARD_AI\" is no storage class"),
            (FILE.replace("dated", "date"), "unknown field `date`"),
            ("[requests".to_owned(), "table"),
        ] {
            let error = PriceTable::parse(&text).unwrap_err().to_string();
            assert!(error.contains(said) && !error.contains('\n'), "{error}");
        }
    }
}
