//! The demo's command line.

use std::path::PathBuf;

use clap::Parser;

/// Upgrades a storage node twice under load, with real processes on the loopback: once well, once with
/// a release that dies, and reads back everything that was ever acknowledged.
#[derive(Clone, Debug, Parser)]
#[command(name = "cargo demo", bin_name = "cargo demo")]
pub struct Arguments {
    /// Store all files of this folder instead of 300 MB of the Rust toolchain's library folder
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,

    /// Print one JSON object on standard output instead of the table and the picture
    #[arg(long)]
    pub json: bool,

    /// Write the picture to this file instead of demo.svg in the build folder
    #[arg(long, value_name = "FILE")]
    pub picture: Option<PathBuf>,

    /// Keep the temporary folder and print its name, to look at what the processes wrote
    #[arg(long)]
    pub keep: bool,
}

impl Arguments {
    /// Where the picture goes.
    pub fn picture(&self) -> PathBuf {
        let beside_build = || {
            let own = std::env::current_exe().ok()?;
            Some(own.parent()?.parent()?.join("demo.svg"))
        };
        self.picture.clone().or_else(beside_build).unwrap_or_else(|| PathBuf::from("demo.svg"))
    }
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
