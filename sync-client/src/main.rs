//! `sync-client`: reads arguments, environment and terminal, runs the command, gives the exit status.

use crossbeam_channel::Receiver;
use nix::unistd::{Uid, User};
use protocol::itemize::Arrow;
use protocol::stats::Exit;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetpgrp, tcsetattr};
use std::env;
use std::fs::File;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use sync_agent::monitor::Progress;
use sync_agent::signals;
use sync_client::bench::BenchJob;
use sync_client::console::{Console, print_error};
use sync_client::endpoint::{self, Environment, Watch};
use sync_client::job::{self, Job, UsageError};
use sync_client::migration::{self, Operator};
use sync_client::prompts::Prompts;
use sync_client::{args, bench, demo, key, probe, proxy, register, trash};

fn main() -> ExitCode {
    let matches = match args::command().try_get_matches() {
        Ok(matches) => matches,
        Err(error) => {
            let is_help = !error.use_stderr();
            let _ = error.print();
            return ExitCode::from(if is_help { 0 } else { Exit::Usage.code() });
        }
    };
    // Modes are set exactly; where they are not kept, what was the umask is applied by hand.
    let umask = rustix::process::umask(rustix::fs::Mode::empty());
    let environment = environment(umask.as_raw_mode() as u16 & 0o777);
    let terminal = terminal_settings();
    let of_plan = matches.subcommand().and_then(|(name, matches)| migration::asked(name, matches));
    let code = match matches.subcommand().filter(|_| of_plan.is_none()) {
        Some(("sync", matches)) => run(job::sync(matches, environment.umask, &cvs_words()), &environment),
        Some(("verify", matches)) => run(job::verify(matches), &environment),
        Some(("bench", matches)) => bench(job::bench(matches), &environment),
        Some(("register", matches)) => register::run(matches, &prompts()),
        Some(("key", matches)) => key::run(matches, environment.home.as_deref(), &prompts()),
        Some(("demo", _)) => demo::run(&environment),
        Some(("probe", matches)) => migrate("probe", matches, &environment),
        Some(("proxy", matches)) => proxy::run(matches, &prompts()),
        Some(("trash", matches)) => trash::run(matches, &prompts()),
        Some(("completions", matches)) => completions(matches),
        Some(("man", matches)) => manual(matches),
        _ => of_plan.map_or(Exit::Usage.code(), |(name, matches)| migrate(&name, matches, &environment)),
    };
    // A run stopped at the prompt for a passphrase has left the terminal without echo.
    if code == Exit::Interrupted.code()
        && let Some((terminal, settings)) = terminal
        && tcgetpgrp(&terminal) == Ok(rustix::process::getpgrp())
    {
        let _ = tcsetattr(&terminal, OptionalActions::Now, &settings);
    }
    ExitCode::from(code)
}

/// The terminal that a passphrase would be asked on, and how it is set.
fn terminal_settings() -> Option<(File, Termios)> {
    let terminal = File::open("/dev/tty").ok()?;
    let settings = tcgetattr(&terminal).ok()?;
    Some((terminal, settings))
}

fn run(job: Result<Job, UsageError>, environment: &Environment) -> u8 {
    let job = match job {
        Ok(job) => job,
        Err(error) => {
            print_error(&error);
            return Exit::Usage.code();
        }
    };
    let arrow = if job.destination.host.is_some() { Arrow::Sent } else { Arrow::Received };
    let terminal = io::stderr().is_terminal();
    let console = match Console::new(job.output.clone(), arrow, is_utf8(), terminal) {
        Ok(console) => console,
        Err(error) => {
            print_error(&UsageError(format!("--log-file: {error}")));
            return Exit::Usage.code();
        }
    };
    console.begin(job.source.host.is_some());
    let progress = Progress::default();
    let stop = match signals::stop_on_signals() {
        Ok(stop) => stop,
        Err(error) => {
            print_error(&error);
            return Exit::StartUp.code();
        }
    };
    let watch = Watch { monitor: &console, progress: &progress, stop };
    let (done, is_done) = crossbeam_channel::bounded::<()>(1);
    let result = std::thread::scope(|scope| {
        scope.spawn(|| console.watch(&progress, &is_done));
        let result = endpoint::sync(&job, environment, &watch);
        drop(done);
        result
    });
    match result {
        Ok(outcome) => console.finish(&outcome),
        Err(error) => {
            let code = error.exit_code();
            console.fail(&error, code);
            code
        }
    }
}

fn bench(job: Result<BenchJob, UsageError>, environment: &Environment) -> u8 {
    let job = match job {
        Ok(job) => job,
        Err(error) => {
            print_error(&error);
            return Exit::Usage.code();
        }
    };
    match signals::stop_on_signals() {
        Ok(stop) => bench::run(&job, environment, is_utf8(), &stop),
        Err(error) => {
            print_error(&error);
            Exit::StartUp.code()
        }
    }
}

fn migrate(name: &str, matches: &clap::ArgMatches, environment: &Environment) -> u8 {
    match signals::stop_on_signals() {
        Ok(stop) => {
            let confirm = |question: &str| confirm_unless_stopped(question, &stop);
            let operator = Operator { environment, stop: &stop, confirm: &confirm };
            match name {
                "probe" => probe::run(matches, &operator, &|name| env::var(name).ok()),
                _ => migration::run(name, matches, &operator),
            }
        }
        Err(error) => {
            print_error(&error);
            Exit::StartUp.code()
        }
    }
}

/// Asks as [`confirm`] does; a signal meanwhile is a no.
fn confirm_unless_stopped(question: &str, stop: &Receiver<()>) -> Option<bool> {
    let (typed, typing) = crossbeam_channel::bounded(1);
    let question = question.to_owned();
    std::thread::spawn(move || typed.send(confirm(&question)));
    crossbeam_channel::select! {
        recv(typing) -> answer => answer.ok().flatten(),
        recv(stop) -> _ => Some(false),
    }
}

fn environment(umask: u16) -> Environment {
    let user = User::from_uid(Uid::effective()).ok().flatten();
    let name = env::var("USER").ok().filter(|name| !name.is_empty());
    Environment {
        home: env::var_os("HOME").map(Into::into),
        user: user.map(|user| user.name).or(name).unwrap_or_else(|| "root".to_owned()),
        agent_socket: env::var_os("SSH_AUTH_SOCK").filter(|path| !path.is_empty()).map(Into::into),
        ask: Arc::new(ask_passphrase),
        state_dir: state_dir(),
        umask,
    }
}

fn state_dir() -> Option<PathBuf> {
    let state = env::var_os("XDG_STATE_HOME").filter(|path| !path.is_empty()).map(PathBuf::from);
    let home = || env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/state"));
    state.or_else(home).map(|state| state.join("sync-client"))
}

/// What the operator has CVS ignore everywhere.
fn cvs_words() -> Vec<u8> {
    use std::os::unix::ffi::OsStringExt;
    let home = env::var_os("HOME").map(|home| PathBuf::from(home).join(".cvsignore"));
    let mut words = home.and_then(|file| std::fs::read(file).ok()).unwrap_or_default();
    words.push(b'\n');
    words.extend(env::var_os("CVSIGNORE").map(OsStringExt::into_vec).unwrap_or_default());
    words
}

fn ask_passphrase(key: &Path) -> Option<String> {
    if !io::stdin().is_terminal() {
        return None;
    }
    rpassword::prompt_password(format!("Passphrase for {}: ", key.display())).ok()
}

/// Questions on the terminal, for commands that change something.
fn prompts() -> Prompts {
    Prompts { confirm, secret, is_shown: io::stdout().is_terminal() }
}

/// Asks on the terminal; anything but a clear yes is none.
fn confirm(question: &str) -> Option<bool> {
    if !io::stdin().is_terminal() {
        return None;
    }
    let _ = write!(io::stderr(), "{question} [y/N] ");
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).ok()?;
    Some(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

fn secret(question: &str) -> Option<String> {
    if !io::stdin().is_terminal() {
        return None;
    }
    rpassword::prompt_password(question).ok()
}

fn is_utf8() -> bool {
    let set = |name| env::var(name).ok().filter(|value| !value.is_empty());
    let locale = set("LC_ALL").or_else(|| set("LC_CTYPE")).or_else(|| set("LANG")).unwrap_or_default();
    let locale = locale.to_ascii_lowercase();
    locale.contains("utf-8") || locale.contains("utf8")
}

fn completions(matches: &clap::ArgMatches) -> u8 {
    if let Some(&shell) = matches.get_one::<clap_complete::Shell>("shell") {
        clap_complete::generate(shell, &mut args::command(), "sync-client", &mut io::stdout());
    }
    0
}

fn manual(matches: &clap::ArgMatches) -> u8 {
    let mut command = args::command();
    command.build();
    if let Some(name) = matches.get_one::<String>("command") {
        match command.find_subcommand(name) {
            Some(found) => command = found.clone(),
            None => {
                print_error(&UsageError(format!("there is no command {name:?}; see sync-client --help")));
                return Exit::Usage.code();
            }
        }
    }
    let mut page = Vec::new();
    let written = clap_mangen::Man::new(command).render(&mut page);
    match written.and_then(|()| io::stdout().write_all(&page)) {
        Ok(()) => 0,
        Err(_) => Exit::FileIo.code(),
    }
}
