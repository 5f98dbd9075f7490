//! Completions and man pages.

use std::io;
use std::path::PathBuf;

use clap::CommandFactory;
use clap_complete::Shell;

use crate::out::{Failure, Outcome};

#[derive(Debug, clap::Args)]
#[command(after_help = "  tidelog completions bash > /etc/bash_completion.d/tidelog")]
pub struct CompletionArgs {
    /// The shell
    shell: Shell,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "  tidelog man | man -l -")]
pub struct ManArgs {
    /// Write a page for each command into this folder
    #[arg(long, value_name = "FOLDER")]
    to: Option<PathBuf>,
}

pub fn completions(args: &CompletionArgs) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut crate::Cli::command(), "tidelog", &mut script);
    Ok(io::Write::write_all(&mut io::stdout(), &script)?)
}

pub fn man(args: &ManArgs) -> Outcome {
    let command = crate::Cli::command();
    match &args.to {
        None => Ok(clap_mangen::Man::new(command).render(&mut io::stdout())?),
        Some(folder) => std::fs::create_dir_all(folder)
            .and_then(|()| clap_mangen::generate_to(command, folder))
            .map_err(|error| Failure::Failed(format!("cannot write into {}: {error}", folder.display()))),
    }
}
