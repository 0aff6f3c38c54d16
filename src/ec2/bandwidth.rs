//! Network bandwidth by instance type, and which families are made for memory. Pure.
//!
//! The table is that of the EC2 instance type guide ("Network specifications" of each family), as of 2026-09. A type that
//! is not in it is judged by its family's kin: the same generation, network-optimised or not. What is told is what the type
//! may use, not what it uses; a wrong number costs some connections too many or too few.

/// Bandwidth of an instance in Mbit/s.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bandwidth {
    /// What it always has.
    pub baseline_megabits: u32,
    /// What it may use for a while, from credits; the baseline where it has no more.
    pub peak_megabits: u32,
}

/// Families of one make.
struct Make {
    families: &'static [&'static str],
    /// Size in quarters of an xlarge, baseline, peak; ascending.
    sizes: &'static [(u32, u32, u32)],
}

/// Generation 3 and 4 said "moderate" and "high"; the numbers are what is measured. 8xlarge is 10 Gbit/s by specification.
const GEN3: Make = Make {
    families: &["r3", "c3", "m3", "i2", "c4", "m4", "d2"],
    sizes: &[
        (2, 500, 500),
        (4, 700, 700),
        (8, 1_000, 1_000),
        (16, 2_000, 2_000),
        (32, 10_000, 10_000),
        (64, 25_000, 25_000),
    ],
};
const R4: Make = Make {
    families: &["r4", "i3", "h1", "x1", "x1e"],
    sizes: &[
        (2, 750, 10_000),
        (4, 1_250, 10_000),
        (8, 2_500, 10_000),
        (16, 5_000, 10_000),
        (32, 10_000, 10_000),
        (64, 25_000, 25_000),
    ],
};
const GEN5: Make = Make {
    families: &["r5", "r5d", "r5b", "m5", "m5d", "c5", "c5d", "z1d"],
    sizes: &[
        (2, 750, 10_000),
        (4, 1_250, 10_000),
        (8, 2_500, 10_000),
        (16, 5_000, 10_000),
        (32, 10_000, 10_000),
        (36, 12_000, 12_000),
        (64, 20_000, 20_000),
        (72, 25_000, 25_000),
    ],
};
const GEN5_AMD: Make = Make {
    families: &["r5a", "r5ad", "m5a", "m5ad", "c5a", "c5ad"],
    sizes: &[
        (2, 750, 10_000),
        (4, 1_250, 10_000),
        (8, 2_500, 10_000),
        (16, 5_000, 10_000),
        (32, 7_500, 10_000),
        (48, 10_000, 10_000),
        (64, 12_000, 12_000),
        (96, 20_000, 20_000),
    ],
};
const GEN5_NETWORK: Make = Make {
    families: &["r5n", "r5dn", "m5n", "m5dn"],
    sizes: &[
        (2, 2_100, 25_000),
        (4, 4_100, 25_000),
        (8, 8_125, 25_000),
        (16, 16_250, 25_000),
        (32, 25_000, 25_000),
        (48, 50_000, 50_000),
        (64, 75_000, 75_000),
        (96, 100_000, 100_000),
    ],
};
const C5N: Make = Make {
    families: &["c5n"],
    sizes: &[
        (2, 3_000, 25_000),
        (4, 5_000, 25_000),
        (8, 10_000, 25_000),
        (16, 15_000, 25_000),
        (36, 50_000, 50_000),
        (72, 100_000, 100_000),
    ],
};
const I3EN: Make = Make {
    families: &["i3en", "i7ie", "i8ge"],
    sizes: &[
        (2, 2_100, 25_000),
        (4, 4_200, 25_000),
        (8, 8_400, 25_000),
        (12, 12_500, 25_000),
        (24, 25_000, 25_000),
        (48, 50_000, 50_000),
        (96, 100_000, 100_000),
    ],
};
const I4: Make = Make {
    families: &["i4i", "i4g", "i7i", "i8g"],
    sizes: &[
        (2, 781, 10_000),
        (4, 1_875, 10_000),
        (8, 4_687, 12_000),
        (16, 9_375, 25_000),
        (32, 18_750, 25_000),
        (48, 28_120, 28_120),
        (64, 37_500, 37_500),
        (96, 56_250, 56_250),
        (128, 75_000, 75_000),
    ],
};
const GEN6: Make = Make {
    families: &[
        "r6i", "r6id", "r6a", "m6i", "m6id", "m6a", "c6i", "c6id", "c6a", "r7i", "r7a", "r7iz", "m7i", "m7a", "c7i",
        "c7a",
    ],
    sizes: &[
        (1, 390, 12_500),
        (2, 781, 12_500),
        (4, 1_562, 12_500),
        (8, 3_125, 12_500),
        (16, 6_250, 12_500),
        (32, 12_500, 12_500),
        (48, 18_750, 18_750),
        (64, 25_000, 25_000),
        (96, 37_500, 37_500),
        (128, 50_000, 50_000),
    ],
};
const GEN6_GRAVITON: Make = Make {
    families: &["r6g", "r6gd", "m6g", "m6gd", "c6g", "c6gd", "x2gd"],
    sizes: &[
        (1, 500, 10_000),
        (2, 750, 10_000),
        (4, 1_250, 10_000),
        (8, 2_500, 10_000),
        (16, 5_000, 10_000),
        (32, 12_000, 12_000),
        (48, 20_000, 20_000),
        (64, 25_000, 25_000),
    ],
};
const C6GN: Make = Make {
    families: &["c6gn", "im4gn", "is4gen"],
    sizes: &[
        (1, 1_600, 16_000),
        (2, 3_000, 25_000),
        (4, 6_300, 25_000),
        (8, 12_500, 25_000),
        (16, 25_000, 25_000),
        (32, 50_000, 50_000),
        (48, 75_000, 75_000),
        (64, 100_000, 100_000),
    ],
};
const GEN6_NETWORK: Make = Make {
    families: &["r6in", "r6idn", "m6in", "m6idn", "c6in", "r8in", "m8in", "c8in"],
    sizes: &[
        (2, 3_125, 25_000),
        (4, 6_250, 30_000),
        (8, 12_500, 40_000),
        (16, 25_000, 50_000),
        (32, 50_000, 50_000),
        (48, 75_000, 75_000),
        (64, 100_000, 100_000),
        (96, 150_000, 150_000),
        (128, 200_000, 200_000),
    ],
};
const GEN7_GRAVITON_NETWORK: Make = Make {
    families: &["c7gn", "r8gn", "m8gn", "c8gn"],
    sizes: &[
        (1, 3_125, 25_000),
        (2, 6_250, 30_000),
        (4, 12_500, 40_000),
        (8, 25_000, 50_000),
        (16, 50_000, 50_000),
        (32, 100_000, 100_000),
        (48, 150_000, 150_000),
        (64, 200_000, 200_000),
    ],
};
const GEN8: Make = Make {
    families: &[
        "r7g", "r7gd", "m7g", "m7gd", "c7g", "c7gd", "r8g", "r8gd", "m8g", "m8gd", "c8g", "c8gd", "r8i", "m8i", "c8i",
        "r8a", "m8a", "c8a", "x8g",
    ],
    sizes: &[
        (1, 520, 12_500),
        (2, 937, 12_500),
        (4, 1_875, 12_500),
        (8, 3_750, 15_000),
        (16, 7_500, 15_000),
        (32, 15_000, 15_000),
        (48, 22_500, 22_500),
        (64, 30_000, 30_000),
        (96, 40_000, 40_000),
        (192, 50_000, 50_000),
    ],
};
const X2: Make = Make {
    families: &["x2iedn", "x2idn", "x2iezn"],
    sizes: &[
        (4, 1_875, 25_000),
        (8, 5_000, 25_000),
        (16, 12_500, 25_000),
        (32, 25_000, 25_000),
        (64, 50_000, 50_000),
        (96, 75_000, 75_000),
        (128, 100_000, 100_000),
    ],
};

const MAKES: [&Make; 15] = [
    &GEN3,
    &R4,
    &GEN5,
    &GEN5_AMD,
    &GEN5_NETWORK,
    &C5N,
    &I3EN,
    &I4,
    &GEN6,
    &GEN6_GRAVITON,
    &C6GN,
    &GEN6_NETWORK,
    &GEN7_GRAVITON_NETWORK,
    &GEN8,
    &X2,
];

/// The bandwidth of `r6i.4xlarge` and its like; `None` if the size says nothing.
pub fn bandwidth_of(instance_type: &str) -> Option<Bandwidth> {
    let (family, size) = instance_type.split_once('.')?;
    let make = MAKES.iter().find(|make| make.families.contains(&family)).copied().or_else(|| kin_of(family))?;
    let (_, baseline_megabits, peak_megabits) = match quarters(size)? {
        Size::Whole => *make.sizes.last()?,
        // A size between two is taken for the smaller one.
        Size::Quarters(size) => *make.sizes.iter().rev().find(|(it, ..)| *it <= size).or_else(|| make.sizes.first())?,
    };
    Some(Bandwidth { baseline_megabits, peak_megabits })
}

enum Size {
    /// `metal`: all that the host has.
    Whole,
    Quarters(u32),
}

fn quarters(size: &str) -> Option<Size> {
    let size = size.strip_prefix("metal-").unwrap_or(size);
    Some(Size::Quarters(match size {
        "metal" => return Some(Size::Whole),
        "nano" | "micro" | "small" | "medium" => 1,
        "large" => 2,
        "xlarge" => 4,
        _ => 4 * size.trim_end_matches("xlarge").trim_end_matches("xl").parse::<u32>().ok()?,
    }))
}

/// `r9gd` is letters, generation, attributes.
fn parts(family: &str) -> Option<(&str, u32, &str)> {
    let digit = family.find(|letter: char| letter.is_ascii_digit())?;
    let (letters, rest) = family.split_at(digit);
    let end = rest.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(rest.len());
    Some((letters, rest[..end].parse().ok()?, &rest[end..]))
}

/// What a family is most like that the table does not know.
fn kin_of(family: &str) -> Option<&'static Make> {
    let (letters, generation, attributes) = parts(family)?;
    let is_network = attributes.contains('n');
    Some(match (letters, generation) {
        // Burstable machines, the cheapest of each generation.
        ("t", _) => &GEN3,
        (_, 0..=3) => &GEN3,
        (_, 4) => &R4,
        (_, 5) if is_network => &GEN5_NETWORK,
        (_, 5) => &GEN5,
        (_, 6 | 7) if is_network => &GEN6_NETWORK,
        (_, _) if is_network && attributes.contains('g') => &GEN7_GRAVITON_NETWORK,
        (_, _) if is_network => &GEN6_NETWORK,
        (_, 6) if attributes.contains('g') => &GEN6_GRAVITON,
        (_, 6 | 7) if !attributes.contains('g') => &GEN6,
        _ => &GEN8,
    })
}

/// Whether a type is of a family that is bought for its memory: r, x, z1d, high memory (u).
pub fn is_memory_optimised(instance_type: &str) -> bool {
    let family = instance_type.split('.').next().unwrap_or_default();
    if family.starts_with("u-") {
        return true;
    }
    parts(family).is_some_and(|(letters, ..)| matches!(letters, "r" | "x" | "z" | "u" | "cr"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_types_have_the_bandwidth_of_the_guide() {
        for (instance_type, baseline, peak) in [
            ("r3.8xlarge", 10_000, 10_000),
            ("r4.16xlarge", 25_000, 25_000),
            ("r5.large", 750, 10_000),
            ("r5.24xlarge", 25_000, 25_000),
            ("m5a.8xlarge", 7_500, 10_000),
            ("r5n.24xlarge", 100_000, 100_000),
            ("c5n.9xlarge", 50_000, 50_000),
            ("r6i.4xlarge", 6_250, 12_500),
            ("m7i.metal-24xl", 37_500, 37_500),
            ("r6in.32xlarge", 200_000, 200_000),
            ("c7gn.16xlarge", 200_000, 200_000),
            ("r8g.metal-48xl", 50_000, 50_000),
            ("i3en.3xlarge", 12_500, 25_000),
            ("r6gd.metal", 25_000, 25_000),
        ] {
            let expected = Bandwidth { baseline_megabits: baseline, peak_megabits: peak };
            assert_eq!(bandwidth_of(instance_type), Some(expected), "{instance_type}");
        }
    }

    #[test]
    fn an_unknown_type_is_like_its_kin() {
        assert_eq!(bandwidth_of("r9g.16xlarge"), bandwidth_of("r8g.16xlarge"));
        assert_eq!(bandwidth_of("r9gn.16xlarge"), bandwidth_of("c8gn.16xlarge"));
        assert_eq!(bandwidth_of("g6.2xlarge"), bandwidth_of("m6i.2xlarge"));
        assert_eq!(bandwidth_of("r6i.20xlarge"), bandwidth_of("r6i.16xlarge"));
        assert!(bandwidth_of("t3.micro").is_some_and(|it| it.peak_megabits <= 1_000));
        for odd in ["", "r5", "r5.huge", ".large", "mac.metal"] {
            assert_eq!(bandwidth_of(odd), None, "{odd}");
        }
    }

    #[test]
    fn tables_are_ascending_and_name_a_family_once() {
        let mut families: Vec<_> = MAKES.iter().flat_map(|make| make.families).collect();
        let count = families.len();
        families.sort_unstable();
        families.dedup();
        assert_eq!(families.len(), count);
        for make in MAKES {
            assert!(make.sizes.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1 && a.2 <= b.2), "{:?}", make.families);
            assert!(make.sizes.iter().all(|(_, baseline, peak)| baseline <= peak), "{:?}", make.families);
        }
    }

    #[test]
    fn memory_optimised_families_are_known() {
        for instance_type in [
            "r3.2xlarge",
            "r8gd.large",
            "x1e.32xlarge",
            "x2iedn.xlarge",
            "u-6tb1.metal",
            "u7i-12tb.224xlarge",
            "z1d.large",
        ] {
            assert!(is_memory_optimised(instance_type), "{instance_type}");
        }
        for instance_type in ["m5.large", "c7gn.large", "i3en.large", "t3.large", "trn1.32xlarge", ""] {
            assert!(!is_memory_optimised(instance_type), "{instance_type}");
        }
    }
}
