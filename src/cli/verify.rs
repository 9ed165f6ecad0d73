//! `rfleet verify`: compares every secondary with the primary.

use clap::Args;

use super::push::{Options, Request, cycle};
use super::{Exit, Global};
use crate::plan::guard::DeleteLimit;

/// Arguments of `rfleet verify`.
#[derive(Args)]
#[command(after_help = "Exit codes: 0 equal, 3 different or not to be had.")]
pub(super) struct VerifyArgs {
    /// SRC and its DESTs, as for push; without them, what the configuration says
    #[arg(value_name = "SRC DEST")]
    paths: Vec<String>,
    #[command(flatten)]
    options: Options,
    /// Push what differs
    #[arg(long)]
    repair: bool,
    /// One line for each difference, in rsync's letters
    #[arg(short, long)]
    itemize_changes: bool,
    /// With SRC DEST: leave out what only DEST has
    #[arg(long)]
    no_delete: bool,
}

pub(super) fn run(global: &Global, args: &VerifyArgs) -> Exit {
    let request = Request {
        command: "verify",
        dry_run: !args.repair,
        itemize: args.itemize_changes,
        delete: !args.no_delete,
        delete_excluded: false,
        // A comparison deletes nothing, so there is nothing to guard.
        max_delete: (!args.repair).then_some(DeleteLimit::Percent(100)),
        confirmed: Vec::new(),
        adopt: !args.repair,
        bytes_per_second: None,
        full: args.repair,
        show_progress: false,
    };
    cycle(global, &args.paths, &args.options, request)
}
