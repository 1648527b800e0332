//! The command line of `cargo model`.

use clap::Parser;

use super::moves::Kind;

/// Explores every state that a node can come to, with so many faults: the product's own decisions among
/// processes, channels and disks that fail.
#[derive(Clone, Debug, Parser)]
#[command(name = "cargo model", bin_name = "cargo model")]
pub struct Arguments {
    /// So many faults, and changes of an operator's mind, in one run of the node
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub faults: u8,

    /// So many upgrades
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub upgrades: u8,

    /// So many writes by clients
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub writes: u8,

    /// Faults of these sorts alone
    #[arg(long, value_name = "KIND", value_delimiter = ',')]
    pub only: Vec<Kind>,

    /// Stop after so many states
    #[arg(long, value_name = "N")]
    pub states: Option<usize>,

    /// Threads
    #[arg(long, value_name = "N", default_value_t = 2)]
    pub threads: usize,

    /// Plant a mistake of this name, or `all` of them one by one, and look for it
    #[arg(long, value_name = "NAME")]
    pub plant: Option<String>,

    /// List the mistakes that can be planted
    #[arg(long)]
    pub list: bool,

    /// Print one JSON object instead of text
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
