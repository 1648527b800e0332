//! The command line of the matrix and the soak.

use clap::Parser;

/// Kills, stops and cuts off supervisor and workers of a storage node at every step of an upgrade, with
/// real processes under load, and looks whether anything was lost, applied twice or left over.
#[derive(Clone, Debug, Parser)]
#[command(name = "cargo chaos", bin_name = "cargo chaos")]
pub struct Arguments {
    /// Print every case with its number, and how many there are
    #[arg(long)]
    pub list: bool,

    /// Play every case once, in order
    #[arg(long, conflicts_with_all = ["runs", "case", "minutes", "soak"])]
    pub all: bool,

    /// Play so many cases, chosen at random
    #[arg(long, value_name = "N", conflicts_with_all = ["case", "soak"])]
    pub runs: Option<usize>,

    /// Play these cases, by number
    #[arg(long, value_name = "K,K…", value_delimiter = ',', conflicts_with = "soak")]
    pub case: Vec<usize>,

    /// Play cases that are chosen at random until the time is over; three minutes if nothing else is asked for
    #[arg(long, value_name = "M", conflicts_with = "soak")]
    pub minutes: Option<f64>,

    /// Instead of cases: upgrades, rollbacks, kills, stops and restarts without pause for so long
    #[arg(long, value_name = "MINUTES")]
    pub soak: Option<f64>,

    /// What is chosen at random follows from it; printed in any case
    #[arg(long, value_name = "S")]
    pub seed: Option<u64>,

    /// So many nodes at a time, each with cases of its own
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=8))]
    pub worlds: u8,

    /// Print one JSON object on standard output: runs, lost, violations, seeds
    #[arg(long)]
    pub json: bool,
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
