//! `sync-client`: reads arguments, environment and terminal, runs the command, gives the exit status.

use crossbeam_channel::Receiver;
use nix::unistd::{Uid, User};
use protocol::stats::Exit;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetpgrp, tcsetattr};
use std::env;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use sync_agent::signals;
use sync_client::bench::BenchJob;
use sync_client::console::{Console, LocalTime, Surroundings, print_error};
use sync_client::endpoint::{self, Environment, Watch};
use sync_client::job::{self, Given, Job, JobError, UsageError};
use sync_client::migration::{self, Operator};
use sync_client::prompts::Prompts;
use sync_client::{args, bench, child, demo, key, planned, probe, proxy, register, trash, version};

fn main() -> ExitCode {
    let as_rsync = is_called_rsync();
    // Before the line is read: one for the other half of an rsync has words of its own.
    if as_rsync && env::args_os().nth(1).is_some_and(|word| word == "--server") {
        let error = JobError::StartedByRsync;
        eprintln!("rsync: {error}");
        return ExitCode::from(error.exit().code());
    }
    let matches = match args::command().try_get_matches_from(typed(as_rsync)) {
        Ok(matches) => matches,
        Err(error) => {
            let is_help = !error.use_stderr();
            let _ = error.print();
            return ExitCode::from(if is_help { 0 } else { Exit::Usage.code() });
        }
    };
    // Modes are set exactly; where they are not kept, what was the umask is applied by hand.
    let environment = environment(child::keep_umask());
    let terminal = terminal_settings();
    let of_plan = matches.subcommand().and_then(|(name, matches)| migration::asked(name, matches));
    let code = match matches.subcommand().filter(|_| of_plan.is_none()) {
        Some(("sync", matches)) => sync(matches, as_rsync, &environment),
        Some(("verify", matches)) => run(job::verify(matches, &given(&environment)), &environment),
        Some(("bench", matches)) => bench(job::bench(matches, &given(&environment)), &environment),
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

/// Whether a link of the name `rsync` was started: then the line is one of rsync's.
fn is_called_rsync() -> bool {
    let name = env::args_os().next().map(PathBuf::from);
    name.is_some_and(|name| name.file_name() == Some("rsync".as_ref()))
}

/// The command line; one of rsync's is that of `sync`.
fn typed(as_rsync: bool) -> Vec<OsString> {
    let mut words: Vec<OsString> = env::args_os().collect();
    if !as_rsync {
        return words;
    }
    if words.len() == 2 && words[1] == "-h" {
        // On its own it asks for help, as in rsync.
        words[1] = "--help".into();
    }
    words.insert(1, "sync".into());
    words
}

fn sync(matches: &clap::ArgMatches, as_rsync: bool, environment: &Environment) -> u8 {
    let asked = match matches.get_count("version") {
        0 => job::help(matches),
        1 => Some(version::text(as_rsync)),
        _ => Some(version::object(as_rsync)),
    };
    match asked {
        Some(text) => match io::stdout().write_all(text.as_bytes()) {
            Ok(()) => 0,
            Err(_) => Exit::FileIo.code(),
        },
        None => run(job::sync(matches, &given(environment)), environment),
    }
}

/// What the command line's meaning depends on.
fn given(environment: &Environment) -> Given {
    Given {
        umask: environment.umask,
        cvs_words: cvs_words(),
        remote_shell: env::var_os("RSYNC_RSH"),
        zone: LocalTime::system(),
        now: jiff::Timestamp::now(),
    }
}

/// The terminal that a passphrase would be asked on, and how it is set.
fn terminal_settings() -> Option<(File, Termios)> {
    let terminal = File::open("/dev/tty").ok()?;
    let settings = tcgetattr(&terminal).ok()?;
    Some((terminal, settings))
}

fn run(job: Result<Job, JobError>, environment: &Environment) -> u8 {
    let job = match job {
        Ok(job) => job,
        Err(error) => {
            print_error(&error);
            return error.exit().code();
        }
    };
    let around = Surroundings {
        umask: environment.umask,
        is_utf8: is_utf8(),
        is_terminal: io::stderr().is_terminal(),
        zone: LocalTime::system(),
    };
    let console = match Console::new(job.output.clone(), job.way(), &job.source.paths, around) {
        Ok(console) => console,
        Err(error) => {
            print_error(&UsageError(format!("--log-file: {error}")));
            return Exit::Usage.code();
        }
    };
    console.begin();
    let stop = match signals::stop_on_signals() {
        Ok(stop) => stop,
        Err(error) => {
            print_error(&error);
            return Exit::StartUp.code();
        }
    };
    let clock = job.stop_at.map(|end| Clock::start(end, stop.clone()));
    let stop = clock.as_ref().map_or(stop, |clock| clock.stop.clone());
    let watch = Watch { monitor: &console, progress: console.progress(), stop };
    let (done, is_done) = crossbeam_channel::bounded::<()>(1);
    let result = std::thread::scope(|scope| {
        scope.spawn(|| console.watch(&is_done));
        let result = match &job.planned {
            Some(planned) => planned::sync(&job, planned, environment, &watch),
            None => endpoint::sync(&job, environment, &watch),
        };
        drop(done);
        result
    });
    match result {
        Ok(outcome) => console.finish(&outcome),
        Err(error) => {
            let is_time_up = error.exit_code() == Exit::Interrupted.code()
                && clock.is_some_and(|clock| clock.is_over.load(Ordering::Acquire));
            let error = if is_time_up { endpoint::RunError::time_is_up() } else { error };
            let code = error.exit_code();
            console.fail(&error, code);
            code
        }
    }
}

/// Ends a run at a point in time, or by a signal before that.
struct Clock {
    stop: Receiver<()>,
    is_over: Arc<AtomicBool>,
}

impl Clock {
    fn start(end: jiff::Timestamp, signals: Receiver<()>) -> Clock {
        let (stopping, stop) = crossbeam_channel::bounded(0);
        let is_over = Arc::new(AtomicBool::new(false));
        let left = Duration::try_from(end.duration_since(jiff::Timestamp::now())).unwrap_or_default();
        let over = Arc::clone(&is_over);
        std::thread::spawn(move || {
            crossbeam_channel::select! {
                recv(signals) -> _ => {}
                recv(crossbeam_channel::after(left)) -> _ => over.store(true, Ordering::Release),
            }
            drop(stopping);
        });
        Clock { stop, is_over }
    }
}

fn bench(job: Result<BenchJob, JobError>, environment: &Environment) -> u8 {
    let job = match job {
        Ok(job) => job,
        Err(error) => {
            print_error(&error);
            return error.exit().code();
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
