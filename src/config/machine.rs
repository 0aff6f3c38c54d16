//! What a machine makes of limits that nobody set: bandwidth becomes connections and windows, memory a limit.

use super::{MountConfig, ReadLimits, memory};

/// What is known of the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// The most that its network passes, in Mbit/s, if it is known.
    pub network_megabits: Option<u32>,
    /// It was bought for its memory.
    pub is_memory_optimised: bool,
}

/// One connection to S3 brings about 90 MB/s.
const CONNECTION_MEGABITS: u32 = 720;
/// Half as many again, so that the network stays full while some connections wait for their first byte.
const fn connections(network_megabits: u32) -> usize {
    (network_megabits.div_ceil(CONNECTION_MEGABITS) * 3).div_ceil(2) as usize
}

/// Fewest and most uploads in flight that bandwidth makes: 16 fill 10 Gbit/s, and beyond 256 connections one process has
/// other limits.
const UPLOADS: std::ops::RangeInclusive<usize> = 16..=256;
/// Widest window of one stream in bytes.
const WINDOW_BYTES_MAX: u64 = 1 << 30;

impl MountConfig {
    /// Adapts what the user did not set to the machine. Never narrows what holds for a machine that is not known.
    pub fn fit(&mut self, machine: &Machine) {
        let mut wanted = ReadLimits::default();
        if let Some(megabits) = machine.network_megabits {
            let connections = connections(megabits).clamp(*UPLOADS.start(), *UPLOADS.end());
            if !self.said.max_concurrency {
                self.write.uploads_max = connections;
            }
            let window_bytes = (connections as u64 * wanted.request_bytes_max).min(WINDOW_BYTES_MAX);
            wanted.window_bytes_max = wanted.window_bytes_max.max(window_bytes);
        }
        let limit_bytes = if machine.is_memory_optimised && !self.said.memory_limit {
            self.memory_limit_bytes.max(memory::present_bytes() / 2)
        } else {
            self.memory_limit_bytes
        };
        self.memory_limit_bytes = limit_bytes;
        memory::divide(limit_bytes, wanted.window_bytes_max, &mut self.read, &mut self.write);
    }
}

/// Which limits the user set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// `--memory-limit`.
    pub memory_limit: bool,
    /// `--max-concurrency`.
    pub max_concurrency: bool,
}

#[cfg(test)]
mod tests {
    use super::super::cli::Cli;
    use super::*;

    fn fitted(words: &[&str], machine: &Machine) -> MountConfig {
        let argv = ["s3mount", "bucket", "/mnt"].iter().chain(words).map(Into::into);
        let mut config = MountConfig::new(Cli::read(argv).expect("good words").mount, (0, 0)).expect("good options");
        config.fit(machine);
        config
    }

    const R6IN: Machine = Machine { network_megabits: Some(200_000), is_memory_optimised: true };

    #[test]
    fn a_fast_network_gets_more_connections_and_a_wider_window() {
        let (slow, fast) =
            (fitted(&["--memory-limit", "16GiB"], &Machine::default()), fitted(&["--memory-limit", "16GiB"], &R6IN));
        assert_eq!((slow.write.uploads_max, slow.read.window_bytes_max), (16, 256 << 20));
        assert_eq!((fast.write.uploads_max, fast.read.window_bytes_max), (256, 1 << 30));
        let ten = Machine { network_megabits: Some(10_000), ..Machine::default() };
        assert_eq!(fitted(&[], &ten).write.uploads_max, 21);
    }

    #[test]
    fn what_the_user_said_stays() {
        let config = fitted(&["--memory-limit", "1GiB", "--max-concurrency", "5"], &R6IN);
        assert_eq!((config.write.uploads_max, config.memory_limit_bytes), (5, 1 << 30));
        assert_eq!(config.read.cache_bytes + config.read.in_flight_bytes + config.write.staging_bytes, 1 << 30);
    }

    #[test]
    fn a_memory_optimised_machine_gives_half_of_its_memory() {
        let (plain, large) = (fitted(&[], &Machine::default()), fitted(&[], &R6IN));
        assert!(large.memory_limit_bytes >= memory::present_bytes() / 2);
        assert!(plain.memory_limit_bytes < large.memory_limit_bytes);
        assert!(large.read.window_bytes_max < large.read.in_flight_bytes);
    }
}
