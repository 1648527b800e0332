//! The benchmark's command line.

use clap::Parser;

/// Measures what clients notice of upgrades: real processes on the loopback, a steady load, several
/// scenarios side by side in one run. Nothing else should run on the machine meanwhile.
#[derive(Clone, Debug, Parser)]
#[command(name = "cargo handover", bin_name = "cargo handover")]
pub struct Arguments {
    /// So many rounds; each has an upgrade, a reversed, a killed one and a restart
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub rounds: u32,

    /// So many records of 200 bytes in the node before the first round
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    pub records: u64,

    /// So many upgrades without load before the rounds, for how fast a state is taken in
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub syncs: u32,

    /// So many megabytes in chunk files
    #[arg(long, value_name = "MB", default_value_t = 1000)]
    pub chunks: u64,

    /// Requests per second
    #[arg(long, value_name = "N", default_value_t = 2000)]
    pub rate: u32,

    /// Print one JSON object on standard output instead of the tables
    #[arg(long)]
    pub json: bool,

    /// Only the figures of the storage: throughput with and without a logbook, and linking
    #[arg(long)]
    pub storage: bool,

    /// Without the figures of the storage alone
    #[arg(long, conflicts_with = "storage")]
    pub no_storage: bool,

    /// Instead of all that: so many upgrades in a row under load, and what is left of them afterwards
    #[arg(long, value_name = "UPGRADES", conflicts_with_all = ["rounds", "storage"])]
    pub row: Option<u32>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        use clap::CommandFactory;
        Arguments::command().debug_assert();
    }
}
