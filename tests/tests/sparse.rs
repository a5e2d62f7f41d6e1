//! Holes in files (`--sparse`), room reserved before writing, devices as files, access times left alone: beside the installed
//! rsync, in every direction, and where rsync has nothing to show.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tests::directions::{ALL, Direction, Stage};
use tests::mount::Tmpfs;
use tests::peak;
use tests::process::{Output, run};
use tests::requirement::installed;
use tests::sandbox::{Sandbox, program};
use tests::seed::{Rng, seeds};
use tests::sshd::{Agent, Options, Sshd};
use tests::tree::{set_mtime, write_at};

const LONG_AGO_S: i64 = 1_500_000_000;
const MIB: u64 = 1 << 20;

/// A file of that length with nothing in it but these parts.
fn sparse_file(path: &Path, size_bytes: u64, parts: &[(u64, &[u8])]) {
    let file = File::create(path).expect("a new file");
    file.set_len(size_bytes).expect("holes take no room");
    for (at, bytes) in parts {
        file.write_all_at(bytes, *at).expect("room");
    }
    set_mtime(path, LONG_AGO_S, 0);
}

/// Changes a file and its time.
fn change(path: &Path, seconds: i64, parts: &[(u64, &[u8])]) {
    let file = File::options().write(true).open(path).expect("it is there");
    for (at, bytes) in parts {
        file.write_all_at(bytes, *at).expect("room");
    }
    set_mtime(path, LONG_AGO_S + seconds, 0);
}

/// Frees a part of a file.
fn punch(file: &File, at: u64, bytes: u64) {
    use rustix::fs::FallocateFlags;
    let how = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    rustix::fs::fallocate(file, how, at, bytes).expect("a file system with holes");
}

fn allocated_bytes(path: &Path) -> u64 {
    fs::symlink_metadata(path).expect("it is there").blocks() * 512
}

/// Every byte of a file that is in no hole and not zero, by place.
fn data(path: &Path) -> (u64, Vec<(u64, Vec<u8>)>) {
    use rustix::fs::{SeekFrom, seek};
    const PAGE: u64 = 4096;
    let file = File::open(path).expect("it is there");
    let size_bytes = file.metadata().expect("it is there").len();
    let (mut parts, mut at) = (Vec::new(), 0);
    while let Ok(from) = seek(&file, SeekFrom::Data(at)) {
        at = seek(&file, SeekFrom::Hole(from)).expect("it ends").max(from + 1);
        let mut page = from - from % PAGE;
        while page < at {
            let mut bytes = vec![0; PAGE.min(size_bytes - page) as usize];
            file.read_exact_at(&mut bytes, page).expect("it is there");
            if bytes.iter().any(|&byte| byte != 0) {
                parts.push((page, bytes));
            }
            page += PAGE;
        }
    }
    parts.dedup_by_key(|(at, _)| *at);
    (size_bytes, parts)
}

fn assert_same_content(one: &Path, other: &Path) {
    let ((size, parts), (other_size, other_parts)) = (data(one), data(other));
    assert_eq!(size, other_size, "{} and {}", one.display(), other.display());
    assert!(parts == other_parts, "{} and {} differ", one.display(), other.display());
}

/// One source with two copies: ours, and rsync's.
struct Case<'a> {
    sandbox: &'a Sandbox,
    stage: &'a Stage,
    direction: Direction,
    directory: PathBuf,
}

impl<'a> Case<'a> {
    fn make(sandbox: &'a Sandbox, stage: &'a Stage, direction: Direction, name: &str) -> Case<'a> {
        let directory = sandbox.path().join(format!("{name}-{direction:?}").replace(['(', ')'], "-"));
        let case = Case { sandbox, stage, direction, directory };
        for path in [case.source(), case.ours(), case.theirs()] {
            fs::create_dir_all(&path).expect("a new directory");
            set_mtime(&path, LONG_AGO_S, 0);
        }
        case
    }

    fn source(&self) -> PathBuf {
        self.directory.join("source")
    }

    fn ours(&self) -> PathBuf {
        self.directory.join("ours")
    }

    fn theirs(&self) -> PathBuf {
        self.directory.join("theirs")
    }

    fn run(&self, options: &[&str]) -> (Output, Output) {
        let source = format!("{}/", self.source().display());
        let text = |path: PathBuf| path.display().to_string();
        let theirs = self.stage.rsync(self.sandbox, self.direction, options, &source, &text(self.theirs()));
        let ours = self.stage.sync(self.sandbox, self.direction, options, &source, &text(self.ours()));
        (theirs, ours)
    }

    /// Runs both, and compares lines, contents, and, where holes are to be, that we take no more room than rsync but for a
    /// few blocks.
    fn compare(&self, options: &[&str], holes: bool) {
        const SLACK_BYTES: u64 = 16 << 10;
        let (theirs, ours) = self.run(options);
        assert_eq!(ours.code(), theirs.code(), "exit status\n{theirs}\n{ours}");
        assert_eq!(theirs.itemized(), ours.itemized(), "itemized lines\n{theirs}\n{ours}");
        for name in tests::sandbox::names_in(&self.source()) {
            let (ours, theirs) = (self.ours().join(&name), self.theirs().join(&name));
            assert_same_content(&self.source().join(&name), &ours);
            assert_same_content(&ours, &theirs);
            let (our_bytes, their_bytes) = (allocated_bytes(&ours), allocated_bytes(&theirs));
            let is_small = !holes || our_bytes <= their_bytes + SLACK_BYTES;
            assert!(is_small, "{name}: {our_bytes}, rsync {their_bytes}, {options:?} {:?}", self.direction);
        }
    }
}

fn some_with_holes(root: &Path) {
    let noise = Rng::new(1).bytes(3 << 20);
    sparse_file(&root.join("middle"), 40 * MIB, &[(10 * MIB, b"in the middle")]);
    sparse_file(&root.join("ends"), 9 * MIB, &[(0, b"start"), (9 * MIB - 3, b"end")]);
    sparse_file(&root.join("nothing"), 30 * MIB, &[]);
    sparse_file(&root.join("empty"), 0, &[]);
    sparse_file(&root.join("dense"), 3 * MIB, &[(0, &noise)]);
    sparse_file(&root.join("written-zeros"), 2 * MIB, &[(0, &vec![0; 2 << 20])]);
    sparse_file(&root.join("small-zeros"), 9000, &[(0, &[0; 9000])]);
    sparse_file(&root.join("small"), 12_288, &[(0, b"a"), (8192, b"b")]);
    sparse_file(&root.join("uneven"), 55_007, &[(0, &[1; 5000]), (55_000, &[2; 7])]);
    sparse_file(
        &root.join("many"),
        20 * MIB,
        &[(MIB, &noise), (5 * MIB + 17, &noise[..70_000]), (19 * MIB, &[3])],
    );
}

#[test]
fn holes_stay_holes_and_zeros_become_holes_as_with_rsync() {
    tests::require!("rsync", "sshd");
    let sandbox = Sandbox::on_disk();
    let stage = Stage::start(&sandbox);
    for direction in ALL {
        const LINES: [&[&str]; 6] = [
            &["-aiS", "--no-whole-file"],
            &["-aiS", "--inplace"],
            &["-aiS", "--preallocate"],
            &["-aiS"],
            &["-aiSW"],
            &["-aiSz", "--no-whole-file", "-B2048"],
        ];
        let lines = if direction == Direction::Local { &LINES[..] } else { &LINES[..2] };
        for (number, options) in lines.iter().enumerate() {
            let case = Case::make(&sandbox, &stage, direction, &format!("parity-{number}"));
            let source = case.source();
            some_with_holes(&source);
            // rsync fills the holes of what it writes in place; that is not asked of us.
            case.compare(options, true);
            change(&source.join("middle"), 1, &[(20 * MIB, b"more"), (10 * MIB, &[0; 4096])]);
            change(&source.join("dense"), 1, &[(MIB, &vec![0; 1 << 20])]);
            change(&source.join("ends"), 1, &[(11 * MIB, b"longer")]);
            change(&source.join("small"), 1, &[(8192, &[0; 4096])]);
            change(&source.join("many"), 1, &[]);
            File::options().write(true).open(source.join("many")).unwrap().set_len(6 * MIB).unwrap();
            set_mtime(&source.join("many"), LONG_AGO_S + 2, 0);
            case.compare(options, true);
            case.compare(options, true);
            fs::remove_dir_all(&case.directory).expect("it is ours");
        }
        let case = Case::make(&sandbox, &stage, direction, "checksum");
        some_with_holes(&case.source());
        case.compare(&["-aic", "--sparse"], true);
        change(&case.source().join("nothing"), 0, &[(7 * MIB, b"something")]);
        case.compare(&["-aicS", "--no-whole-file"], true);
        // Without the option what is there stays as it is, and what comes anew is written.
        change(&case.source().join("middle"), 5, &[(0, b"first")]);
        case.compare(&["-ai", "--no-sparse"], false);
        fs::remove_dir_all(&case.directory).expect("it is ours");
    }
}

#[test]
fn what_was_written_without_holes_gets_them_and_the_other_way_round() {
    let sandbox = Sandbox::on_disk();
    let (source, destination) = (sandbox.source(), sandbox.destination());
    let line = [format!("{}/", source.display()), destination.display().to_string()];
    let sync = |options: &[&str]| {
        let options = options.iter().map(|&option| option.to_owned());
        sandbox.sync(options.chain(line.clone())).success();
        assert_same_content(&source.join("file"), &destination.join("file"));
    };
    let parts: [(u64, &[u8]); 2] = [(3 * MIB, &[1; 100_000]), (20 * MIB, b"x")];
    for (first, options) in [
        (&["-a"][..], &["-aS", "--no-whole-file"][..]),
        (&["-a"], &["-aS", "--no-whole-file", "--inplace"]),
        (&["-aS"], &["-aS", "--no-whole-file", "--inplace"]),
        (&["-a"], &["-aS", "--whole-file"]),
        (&["-aS"], &["-a", "--no-whole-file"]),
        (&["-aS"], &["-acS", "--no-whole-file"]),
    ] {
        let _ = fs::remove_file(destination.join("file"));
        sparse_file(&source.join("file"), 30 * MIB, &parts);
        sync(first);
        change(&source.join("file"), 1, &[(25 * MIB, b"y")]);
        sync(options);
        let allocated = allocated_bytes(&destination.join("file"));
        let is_sparse = options.iter().any(|option| option.contains('S'));
        assert!(!is_sparse || allocated < MIB, "{first:?} {options:?}: {allocated}");
        // In place of a hole, data; in place of data, a hole.
        let file = File::options().write(true).open(source.join("file")).expect("it is there");
        file.write_all_at(&[7; 9000], 10 * MIB).expect("room");
        punch(&file, 3 * MIB, 64 << 10);
        set_mtime(&source.join("file"), LONG_AGO_S + 2, 0);
        sync(options);
    }
}

#[test]
fn with_whatever_other_options_a_file_with_holes_arrives_as_it_is() {
    let sandbox = Sandbox::new();
    let (source, destination) = (sandbox.source(), sandbox.destination());
    let line = [format!("{}/", source.display()), destination.display().to_string()];
    let noise = Rng::new(8).bytes(300_000);
    for options in [
        &["--append"][..],
        &["--append-verify"],
        &["-y"],
        &["--partial-dir=.partial"],
        &["--delay-updates"],
        &["--delay-updates", "--partial-dir=.partial"],
        &["-H"],
        &["-z"],
        &["-X"],
        &["--bwlimit=100M"],
        &["--trash=.trash"],
        &["-b", "--backup-dir=.old"],
        &["--inplace"],
        &["-B", "4096"],
        &["-u", "--open-noatime"],
        &["--size-only", "--inplace"],
    ] {
        let sync = || {
            let words = ["-aS", "--no-whole-file"].into_iter().chain(options.iter().copied());
            sandbox.sync(words.map(str::to_owned).chain(line.clone())).success();
        };
        sparse_file(&source.join("file"), 1 << 34, &[(0, &noise), (7 << 30, &noise)]);
        fs::hard_link(source.join("file"), source.join("name")).expect("a new name");
        sync();
        // Longer by a hole and some data: what --append is for.
        let file = File::options().write(true).open(source.join("file")).expect("it is there");
        file.write_all_at(b"more", (1 << 34) + 9 * MIB).expect("room");
        set_mtime(&source.join("file"), LONG_AGO_S + 1, 0);
        sparse_file(&source.join("file.2"), 1 << 33, &[(0, &noise), (5 << 30, b"another")]);
        sync();
        for name in ["file", "name", "file.2"] {
            assert_same_content(&source.join(name), &destination.join(name));
            let allocated = allocated_bytes(&destination.join(name));
            assert!(allocated < 3 * MIB, "{options:?} {name}: {allocated}");
        }
        for root in [&source, &destination] {
            fs::remove_dir_all(root).and_then(|()| fs::create_dir(root)).expect("it is ours");
        }
    }
}

/// A tebibyte, in which the data is nearly nothing.
fn tebibyte(path: &Path, seed: u64) {
    let mut rng = Rng::new(seed);
    let noise = rng.bytes(20_000);
    let parts: Vec<(u64, &[u8])> =
        (0..200).map(|_| (rng.below((1 << 40) - 20_000), &noise[..1 + rng.below(20_000) as usize])).collect();
    sparse_file(path, 1 << 40, &parts);
}

#[test]
fn a_tebibyte_of_holes_takes_as_long_as_its_data() {
    tests::require!("sshd", "python3");
    let sandbox = Sandbox::new();
    let agent_peaks = sandbox.path().join("agent-peaks");
    let script = peak::agent_script(&program("sync-agent"), &agent_peaks);
    let sshd = Sshd::start_with(&sandbox, &Options { agent: Agent::Script(script), ..Options::default() });
    let (from, to) = (sandbox.source().join("file"), sandbox.destination().join("file"));
    let local = [from.display().to_string(), to.display().to_string()];
    let remote = |path: &str| sshd.address().host_path(path);
    for (from_arg, to_arg) in [
        (local[0].clone(), local[1].clone()),
        (remote(&local[0]), local[1].clone()),
        (local[0].clone(), remote(&local[1])),
    ] {
        let _ = fs::remove_file(&to);
        tebibyte(&from, 1);
        for (round, options) in (1..).zip([
            &["-aS"][..],
            &["-aS", "--no-whole-file"],
            &["-aS", "--no-whole-file", "--inplace"],
            &["-acS", "--no-whole-file"],
            &["-acS"],
            &["-aSI", "--no-whole-file"],
            &["-aSI", "--no-whole-file", "-b", "--suffix=.old"],
        ]) {
            let shell = sshd.remote_shell();
            let words = options.iter().copied().chain(["-e", &shell, &from_arg, &to_arg]);
            let since = Instant::now();
            let (output, client_bytes) = peak::of(&sandbox, &sandbox.sync_command(words));
            output.success();
            let took = since.elapsed();
            println!("{options:?} {from_arg} {to_arg}: {took:?}");
            assert!(took < Duration::from_secs(30), "{options:?} took {took:?}");
            assert!(client_bytes < 96 * MIB, "{options:?}: {client_bytes} bytes of memory");
            assert_same_content(&from, &to);
            let (ours, source) = (allocated_bytes(&to), allocated_bytes(&from));
            assert!(ours <= source + (64 << 10), "{options:?}: {ours}, the source {source}");
            change(&from, round, &[(round as u64 * (100 << 30) + 77, b"a small change")]);
        }
        if agent_peaks.exists() {
            let agent_bytes = peak::read_last(&agent_peaks);
            assert!(agent_bytes < 96 * MIB, "the agent: {agent_bytes} bytes of memory");
        }
    }
}

#[test]
fn random_layouts_arrive_with_random_options_as_with_rsync() {
    tests::require!("rsync", "sshd");
    let sandbox = Sandbox::new();
    let stage = Stage::start(&sandbox);
    for seed in seeds(12) {
        let mut rng = Rng::new(seed);
        let noise = rng.bytes(200_000);
        let case = Case::make(&sandbox, &stage, ALL[0], &format!("seed-{seed}"));
        for file in 0..6 {
            let size_bytes = rng.log_len(12 * MIB) as u64 + 1;
            let parts: Vec<(u64, &[u8])> = (0..rng.below(8))
                .map(|_| {
                    let at = rng.below(size_bytes);
                    let aligned = if rng.chance(50) { at - at % 4096 } else { at };
                    let length = (rng.log_len(200_000) as u64).min(size_bytes - aligned) as usize;
                    (aligned, if rng.chance(20) { &[0; 200_000][..length] } else { &noise[..length] })
                })
                .collect();
            sparse_file(&case.source().join(format!("file-{file}")), size_bytes, &parts);
        }
        let mut options = vec!["-aiS"];
        let mut some = |percent, option| {
            if rng.chance(percent) {
                options.push(option);
            }
        };
        some(60, "--no-whole-file");
        some(30, "--inplace");
        some(30, "--preallocate");
        some(30, "-c");
        some(30, "--open-noatime");
        some(20, "-b");
        let mut rng = Rng::new(seed + 1000);
        for round in 1..4 {
            println!("seed {seed}, round {round}, {options:?}");
            // rsync writes zeros in place of data in a file that it patches, and keeps what it reserved.
            let is_like_rsync = !options.contains(&"-b");
            case.compare(&options, is_like_rsync);
            for file in 0..6 {
                let path = case.source().join(format!("file-{file}"));
                let size_bytes = fs::metadata(&path).expect("it is there").len();
                let at = rng.below(size_bytes + 5000);
                let zeros = [0; 10_000];
                let bytes = if rng.chance(40) { &zeros[..] } else { &noise[..10_000] };
                if rng.chance(70) {
                    change(&path, round, &[(at, &bytes[..rng.log_len(10_000)])]);
                }
            }
        }
        fs::remove_dir_all(&case.directory).expect("it is ours");
    }
}

#[test]
fn a_file_whose_holes_move_while_it_is_read_arrives_as_one_state_of_it_or_not_at_all() {
    let sandbox = Sandbox::new();
    let (from, to) = (sandbox.source().join("file"), sandbox.destination().join("file"));
    let noise = Rng::new(3).bytes(64 << 10);
    // Every byte that is there says which state it is of.
    sparse_file(&from, 256 * MIB, &[(0, &noise)]);
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let file = File::options().write(true).open(&from).expect("it is there");
            let mut rng = Rng::new(4);
            while !is_over.load(Ordering::Relaxed) {
                let at = rng.below(250) * MIB;
                if rng.chance(50) {
                    file.write_all_at(&noise, at).expect("room");
                } else {
                    punch(&file, at, 128 << 10);
                }
                std::thread::yield_now();
            }
        });
        let line = [from.display().to_string(), to.display().to_string()];
        for options in ["-aS", "-aSI", "-acS"] {
            let words = [options, "--no-whole-file", &line[0], &line[1]];
            sandbox.sync(words).expect_code_in(&[0, 23, 24]);
        }
        is_over.store(true, Ordering::Relaxed);
    });
    sandbox
        .sync(["-aSI", "--no-whole-file", &from.display().to_string(), &to.display().to_string()])
        .success();
    assert_same_content(&from, &to);
}

#[test]
fn a_sparse_patch_killed_at_any_moment_is_rolled_back_or_forward() {
    let sandbox = Sandbox::new();
    let (from, to) = (sandbox.source().join("file"), sandbox.destination().join("file"));
    let paths = [format!("{}/", sandbox.source().display()), sandbox.destination().display().to_string()];
    for seed in seeds(8) {
        let mut rng = Rng::new(seed);
        let noise = rng.bytes(1 << 20);
        let random_parts = |rng: &mut Rng| -> Vec<(u64, &[u8])> {
            (0..20).map(|_| (rng.below(60 * MIB), &noise[..1 + rng.log_len(MIB - 1)])).collect()
        };
        let _ = fs::remove_file(&to);
        sparse_file(&from, 64 * MIB, &random_parts(&mut rng));
        sandbox.sync(["-aS", &paths[0], &paths[1]]).success();
        let old = data(&to);
        sparse_file(&from, 64 * MIB + rng.below(MIB), &random_parts(&mut rng));
        set_mtime(&from, LONG_AGO_S + 1, 0);
        let new = data(&from);
        let mut running = sandbox.start_sync(["-aS", "--inplace", "--no-whole-file", &paths[0], &paths[1]]);
        let _ = running.ended_within(Duration::from_millis(rng.below(80)));
        running.kill();
        let killed = running.wait_within(Duration::from_secs(60));
        fs::rename(&from, sandbox.path().join("aside")).expect("it is ours");
        sandbox.sync(["-a", &paths[0], &paths[1]]).success();
        let found = data(&to);
        assert!(found == old || found == new, "seed {seed}: neither old nor new\n{killed}");
        fs::rename(sandbox.path().join("aside"), &from).expect("it is ours");
        sandbox.sync(["-aS", "--inplace", "--no-whole-file", &paths[0], &paths[1]]).success();
        assert_same_content(&from, &to);
    }
}

#[test]
fn what_an_interrupted_run_left_of_a_sparse_file_is_used_by_the_next() {
    let sandbox = Sandbox::new();
    let (from, to) = (sandbox.source().join("file"), sandbox.destination().join("file"));
    let noise = Rng::new(5).bytes(24 << 20);
    sparse_file(
        &from,
        1 << 38,
        &[(5 << 30, &noise[..12 << 20]), (100 << 30, &noise[12 << 20..]), (200 << 30, b"end")],
    );
    let line = [from.display().to_string(), to.display().to_string()];
    let mut running = sandbox.start_sync(["-aS", "--bwlimit=8M", &line[0], &line[1]]);
    tests::process::until(Duration::from_secs(30), "a part of it", || {
        let staging = sandbox.destination().join(".sync-agent-staging");
        let part = fs::read_dir(staging).ok()?.flatten().next()?;
        (part.metadata().ok()?.blocks() * 512 > 4 * MIB).then_some(())
    });
    running.kill();
    let _ = running.wait_within(Duration::from_secs(60));
    let output = sandbox.sync(["-aS", "--json", "--no-whole-file", &line[0], &line[1]]);
    output.success();
    assert_same_content(&from, &to);
    assert!(output.summary_number("matched_bytes") >= MIB, "{output}");
    assert!(allocated_bytes(&to) <= allocated_bytes(&from) + (64 << 10));
}

#[test]
fn a_copy_of_a_base_a_backup_and_a_scratch_file_keep_their_holes() {
    tests::require!("root");
    let sandbox = Sandbox::new();
    let (source, destination) = (sandbox.source(), sandbox.destination());
    let elsewhere = sandbox.path().join("elsewhere");
    fs::create_dir(&elsewhere).expect("a new directory");
    let other = Tmpfs::mount(&elsewhere, 16 * MIB);
    let base = sandbox.path().join("base");
    fs::create_dir(&base).expect("a new directory");
    let file = |directory: &Path| directory.join("file");
    tebibyte(&file(&source), 7);
    let line = [format!("{}/", source.display()), destination.display().to_string()];
    let sync = |options: &[&str]| {
        let options = options.iter().map(|&option| option.to_owned());
        sandbox.sync(options.chain(line.clone())).success();
        assert_same_content(&file(&source), &file(&destination));
        assert!(allocated_bytes(&file(&destination)) < 8 * MIB, "{}", allocated_bytes(&file(&destination)));
    };
    sandbox.sync(["-aS", &line[0], &base.display().to_string()]).success();
    sync(&["-aS", "--copy-dest=../base"]);
    fs::remove_file(file(&destination)).expect("it is there");
    set_mtime(&file(&base), LONG_AGO_S + 9, 0);
    sync(&["-aScI", "--copy-dest=../base"]);
    fs::remove_file(file(&destination)).expect("it is there");
    sync(&["-aS", &format!("--temp-dir={}", other.path().display())]);
    change(&file(&source), 1, &[(5 << 30, b"new")]);
    sync(&["-aS", "-b", &format!("--backup-dir={}", other.path().display())]);
    assert_same_content(&file(other.path()), &file(&base));
    fs::remove_file(file(other.path())).expect("it is there");
    let old = data(&file(&destination));
    change(&file(&source), 2, &[(6 << 30, b"newer")]);
    sync(&["-aS", "--trash=.trash", "--no-whole-file"]);
    assert_ne!(old, data(&file(&destination)));
}

#[test]
fn a_file_system_without_holes_gets_the_same_content() {
    tests::require!("root");
    let sandbox = Sandbox::new();
    let mut command = Command::new("mount");
    command.args(["-t", "ramfs", "ramfs"]).arg(sandbox.destination());
    run(command).success();
    let (from, to) = (sandbox.source().join("file"), sandbox.destination().join("file"));
    sparse_file(&from, 20 * MIB, &[(3 * MIB, &[1; 9000])]);
    let line = [from.display().to_string(), to.display().to_string()];
    let outcome = std::panic::catch_unwind(|| {
        for (round, options) in (1..).zip([
            &["-aS"][..],
            &["-aS", "--no-whole-file"],
            &["-aS", "--inplace", "--no-whole-file"],
            &["-aS", "--inplace", "--preallocate"],
            &["-aS", "--preallocate"],
        ]) {
            sandbox.sync(options.iter().copied().chain([&*line[0], &*line[1]])).success();
            assert_same_content(&from, &to);
            change(&from, round, &[(round as u64 * 3 * MIB, &[0; 9000]), (round as u64 * MIB, &[5; 9000])]);
        }
    });
    let mut command = Command::new("umount");
    command.arg("-l").arg(sandbox.destination());
    run(command).success();
    assert!(outcome.is_ok(), "see above");
}

#[test]
fn room_is_reserved_before_a_byte_is_written_or_the_run_ends_with_nothing_changed() {
    tests::require!("root", "rsync", "sshd");
    let sandbox = Sandbox::new();
    let small = Tmpfs::mount(&sandbox.destination(), 8 * MIB);
    let from = sandbox.source().join("file");
    let line = [from.display().to_string(), small.path().join("file").display().to_string()];
    // All of it would be zeros: only reserving it fails.
    sparse_file(&from, 32 * MIB, &[]);
    let full = sandbox.sync(["-aS", "--preallocate", &line[0], &line[1]]);
    full.expect_code(44);
    assert!(full.stderr_text().contains("make room"), "{full}");
    assert!(!small.path().join("file").exists());
    sandbox.sync(["-aS", &line[0], &line[1]]).success();
    assert_eq!(allocated_bytes(&small.path().join("file")), 0);
    // Where there is room, it is taken, and what is zeros is given back with -S.
    drop(small);
    let room = Tmpfs::mount(&sandbox.destination(), 100 * MIB);
    let line = [from.display().to_string(), room.path().join("file").display().to_string()];
    change(&from, 1, &[(MIB, b"data")]);
    sandbox.sync(["-a", "--preallocate", &line[0], &line[1]]).success();
    assert_same_content(&from, &room.path().join("file"));
    assert_eq!(allocated_bytes(&room.path().join("file")), 32 * MIB);
    change(&from, 2, &[(2 * MIB, b"data")]);
    sandbox.sync(["-aSW", "--preallocate", &line[0], &line[1]]).success();
    assert_same_content(&from, &room.path().join("file"));
    assert!(allocated_bytes(&room.path().join("file")) < MIB);
}

/// A block device with this content; detached when dropped.
struct Loop(String);

impl Loop {
    fn attach(image: &Path) -> Loop {
        let mut command = Command::new(installed("losetup"));
        command.args(["--find", "--show"]).arg(image);
        Loop(run(command).success().stdout_text().trim().to_owned())
    }

    fn number(&self) -> u64 {
        fs::metadata(&self.0).expect("it is there").rdev()
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let mut command = Command::new(installed("losetup"));
        command.arg("--detach").arg(&self.0);
        let _ = run(command);
    }
}

#[test]
fn devices_are_copied_as_files_with_what_is_on_them() {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    tests::require!("root", "rsync", "sshd", "losetup");
    let sandbox = Sandbox::on_disk();
    let stage = Stage::start(&sandbox);
    let image = sandbox.path().join("image");
    sparse_file(&image, 4 * MIB, &[(0, b"a disk"), (3 * MIB, &[9; 5000])]);
    let device = Loop::attach(&image);
    for direction in ALL {
        let case = Case::make(&sandbox, &stage, direction, "devices");
        let node = |name: &str, kind, number| {
            let path = case.source().join(name);
            mknodat(CWD, &path, kind, Mode::RUSR | Mode::WUSR, number).expect("a new device");
            set_mtime(&path, LONG_AGO_S, 0);
        };
        node("disk", FileType::BlockDevice, device.number());
        // It has no end, and nothing that could be sought to: both take it for empty.
        node("zero", FileType::CharacterDevice, rustix::fs::makedev(1, 5));
        node("null", FileType::CharacterDevice, rustix::fs::makedev(1, 3));
        write_at(&case.source().join("file"), b"content", LONG_AGO_S);
        set_mtime(&case.source(), LONG_AGO_S, 0);
        for options in
            [&["-ai", "--copy-devices"][..], &["-aic", "--copy-devices"], &["-aiIS", "--copy-devices"]]
        {
            let (theirs, ours) = case.run(options);
            assert_eq!(ours.code(), theirs.code(), "{theirs}\n{ours}");
            // rsync gives the copy of a device its time in a later run, sometimes.
            if options.contains(&"-ai") {
                assert_eq!(theirs.itemized(), ours.itemized(), "{direction:?} {options:?}\n{theirs}\n{ours}");
            }
            for name in ["disk", "zero", "null", "file"] {
                assert_same_content(&case.theirs().join(name), &case.ours().join(name));
            }
            assert_same_content(&image, &case.ours().join("disk"));
        }
        fs::remove_dir_all(&case.directory).expect("it is ours");
    }
}

#[test]
fn what_is_read_keeps_its_access_time_if_that_is_asked_for() {
    tests::require!("sshd", "root");
    let sandbox = Sandbox::on_disk();
    let stage = Stage::start(&sandbox);
    for direction in ALL {
        let case = Case::make(&sandbox, &stage, direction, "atime");
        let paths = [case.source().join("directory/file"), case.source().join("directory")];
        fs::create_dir(&paths[1]).expect("a new directory");
        write_at(&paths[0], &[1; 50_000], LONG_AGO_S);
        let atime = |path: &Path| fs::metadata(path).expect("it is there").atime();
        for path in &paths {
            let times = rustix::fs::Timestamps {
                last_access: rustix::fs::Timespec { tv_sec: LONG_AGO_S - 9, tv_nsec: 0 },
                last_modification: rustix::fs::Timespec { tv_sec: LONG_AGO_S, tv_nsec: 0 },
            };
            rustix::fs::utimensat(rustix::fs::CWD, path, &times, rustix::fs::AtFlags::empty()).expect("ours");
        }
        let source = format!("{}/", case.source().display());
        let to = case.ours().display().to_string();
        stage.sync(&sandbox, direction, &["-a", "--open-noatime"], &source, &to).success();
        for path in &paths {
            assert_eq!(atime(path), LONG_AGO_S - 9, "{direction:?} {}", path.display());
        }
    }
}

#[test]
fn writing_to_devices_is_refused() {
    let sandbox = Sandbox::new();
    let output = sandbox.sync(["-a", "--write-devices", "a", "b"]);
    output.expect_code(1).expect_stderr("can be neither staged nor taken back");
}
