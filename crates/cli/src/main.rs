//! `shardkeep`: one binary, all roles. This file is wiring; each group of commands has its own.

mod args;
mod context;
mod failure;
mod out;
mod safe;
mod units;

mod glob;
mod local;
mod logs;
mod meter;
mod password;
mod range;
mod secret;
mod stop;
mod target;

mod account;
mod bench;
mod change;
mod cluster;
mod demo;
mod link;
mod listing;
mod manual;
mod message;
mod people;
mod queue;
mod s3;
mod serve;
mod share;
mod transfer;
mod trash;
mod up;
mod usage;
mod verify;
mod versions;
mod watch;

/// Chunks come and go by megabytes: with the system's allocator each brings fresh pages, and the
/// page faults cost more than the work on them.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Threads for files and for work on whole chunks. More of them would not make disks or cores faster,
/// and each keeps buffers of its own.
const BLOCKING_THREADS: usize = 8;

fn main() -> ! {
    let cli = args::parse();
    let out = out::Out::new(&cli.global);
    logs::start(&cli);
    leave_no_core_dump();
    let code = match tokio::runtime::Builder::new_multi_thread().max_blocking_threads(BLOCKING_THREADS).enable_all().build() {
        Ok(runtime) => {
            let code = runtime.block_on(async {
                match cli.run(out.clone()).await {
                    Ok(code) => code,
                    Err(failure) => failure.report(&out),
                }
            });
            // Dropping it would wait for its threads, and one may read standard input for ever.
            runtime.shutdown_background();
            code
        }
        Err(e) => failure::Failure::from(model::Error::unavailable(format!("no threads to run on: {e}"))).report(&out),
    };
    // Not by returning: a read from the terminal that is still under way must not hold the process.
    std::process::exit(code.into())
}

/// Keys lie in this process's memory: when it crashes, that must not lie on a disk afterwards.
fn leave_no_core_dump() {
    use rustix::process::{Resource, Rlimit, setrlimit};
    if let Err(e) = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }) {
        tracing::warn!(error = %e, "core dumps of this process cannot be turned off");
    }
}
