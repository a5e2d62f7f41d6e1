//! Which bytes change, so that the destination's nginx gets every request as the client sent it.
//!
//! Upstreams get one server, the destination. A `proxy_pass` to one goes by TLS and without a URI part: cutting
//! `/previews/` off is what the destination's own nginx does, and must get to do. Where a `rewrite` may have
//! changed the path before, `$request_uri` brings the client's back; an `internal` location keeps its URI part, for
//! no client ever sent its path.
//!
//! TLS settings hold for a whole location. One with a `limit_except` that moves and a `proxy_pass` that stays can't
//! have both, so those methods go on to a location of their own (`Planner::split`).

use super::marks::{Change, end_of_line};
use super::survey::{Goes, Pass, Survey, Upstream};
use super::target::{MOVING, Target};
use super::tree::{Directive, Tree};
use super::{Moved, NginxError, Remark, arguments, text};
use std::ops::Range;

/// Settings that the edit makes; those that stand in the way go.
const TLS_SETTINGS: [&[u8]; 6] = [
    b"proxy_ssl_server_name",
    b"proxy_ssl_name",
    b"proxy_ssl_session_reuse",
    b"proxy_ssl_verify",
    b"proxy_ssl_verify_depth",
    b"proxy_ssl_trusted_certificate",
];

/// What works with one server as with several.
const BALANCING: [&str; 11] = [
    "server",
    "ip_hash",
    "least_conn",
    "hash",
    "random",
    "zone",
    "keepalive",
    "keepalive_requests",
    "keepalive_time",
    "keepalive_timeout",
    "least_time",
];

/// What a new location does not take over from the one it comes from: what decides the path, what is made anew, and
/// `proxy_redirect`, whose `default` nginx refuses beside a variable.
const NOT_TAKEN: [&[u8]; 9] = [
    b"proxy_pass",
    b"set",
    b"rewrite",
    b"return",
    b"break",
    b"try_files",
    b"rewrite_log",
    b"internal",
    b"proxy_redirect",
];

/// What is to be done.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) changes: Vec<Change>,
    pub(super) moved: Vec<Moved>,
    pub(super) passes: Vec<super::Pass>,
    pub(super) left: Vec<Remark>,
    pub(super) notes: Vec<Remark>,
}

/// Decides every change.
pub(super) fn plan(tree: &Tree<'_>, target: &Target) -> Result<Plan, NginxError> {
    let survey = Survey::new(tree);
    let moving = choose(tree, &survey, target)?;
    refuse_hidden_uses(tree, &survey, &moving)?;
    let mut planner =
        Planner { tree, survey: &survey, target, moving: &moving, plan: Plan::default(), splits: 0 };
    for upstream in &moving {
        planner.upstream(upstream)?;
    }
    for (location, passes) in planner.locations()? {
        planner.location(&location, &passes)?;
    }
    planner.leave();
    planner.note_surroundings();
    Ok(planner.plan)
}

/// The upstreams that move, in the order of the file.
fn choose<'s, 't>(
    tree: &Tree<'_>,
    survey: &'s Survey<'t>,
    target: &Target,
) -> Result<Vec<&'s Upstream<'t>>, NginxError> {
    let is_named = !target.upstreams.is_empty();
    let defaults = MOVING.map(str::to_owned);
    let mut moving: Vec<&Upstream<'_>> = Vec::new();
    for name in if is_named { &target.upstreams[..] } else { &defaults } {
        let mut found = survey.upstreams.iter().filter(|upstream| is_same(upstream.name, name.as_bytes()));
        let used = survey.passes_to(name.as_bytes()).next();
        match (found.next(), found.next()) {
            (_, Some(second)) => {
                return Err(unsuitable(
                    tree,
                    second.directive,
                    format!("a second upstream {name}; nginx refuses it"),
                ));
            }
            (None, _) if is_named => {
                return Err(NginxError::UnknownUpstream { name: name.clone(), known: known(survey) });
            }
            (None, _) => {
                if let Some(pass) = used {
                    let what = format!(
                        "requests go to {name}, which this file does not define: its servers and all that uses it \
                         must be in one file (or name those that are with --upstream)"
                    );
                    return Err(unsuitable(tree, pass.directive, what));
                }
            }
            (Some(upstream), _) if used.is_none() && is_named => {
                let what = format!("no proxy_pass in this file uses {name}: give the file that does");
                return Err(unsuitable(tree, upstream.directive, what));
            }
            (Some(upstream), _) if used.is_some() => moving.push(upstream),
            (Some(_), _) => {}
        }
    }
    if moving.is_empty() {
        return Err(NginxError::NothingToMove { known: known(survey) });
    }
    moving.sort_by_key(|upstream| upstream.directive.span.start);
    moving.dedup_by_key(|upstream| upstream.directive.span.start);
    Ok(moving)
}

fn known(survey: &Survey<'_>) -> String {
    let names: Vec<String> = survey.upstreams.iter().map(|upstream| text(upstream.name)).collect();
    let includes: Vec<String> = survey.includes.iter().map(|include| arguments(include)).collect();
    let mut known = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    known.insert_str(0, "it defines ");
    if !includes.is_empty() {
        known.push_str(&format!(" (and includes {})", includes.join(", ")));
    }
    known
}

/// Uses that can't be followed would send plain HTTP to a TLS port.
fn refuse_hidden_uses(
    tree: &Tree<'_>,
    survey: &Survey<'_>,
    moving: &[&Upstream<'_>],
) -> Result<(), NginxError> {
    let mentioned = |value: &[u8]| moving.iter().find(|upstream| mentions(value, upstream.name));
    for pass in &survey.other_passes {
        if let Some(upstream) = pass.argument(1).and_then(mentioned) {
            let what =
                format!("{} uses {}, which then speaks HTTPS only", text(pass.name()), text(upstream.name));
            return Err(unsuitable(tree, pass, what));
        }
    }
    let Some(by_variable) = survey.passes.iter().find(|pass| matches!(pass.goes, Goes::ByVariable { .. }))
    else {
        return Ok(());
    };
    for directive in tree.all() {
        if directive.is("upstream") || directive.is("proxy_pass") {
            continue;
        }
        if let Some(upstream) = directive.words.iter().find_map(|word| mentioned(&word.value)) {
            let line = tree.line(by_variable.directive.span.start);
            let what = format!(
                "{} may get into a variable here, and the proxy_pass in line {line} goes where one says: write the \
                 upstream's name there",
                text(upstream.name)
            );
            return Err(unsuitable(tree, directive, what));
        }
    }
    Ok(())
}

fn mentions(value: &[u8], name: &[u8]) -> bool {
    let behind_slashes = [b"//", name].concat();
    is_same(value, name) || value.windows(behind_slashes.len()).any(|part| is_same(part, &behind_slashes))
}

fn is_same(a: &[u8], b: &[u8]) -> bool {
    a.eq_ignore_ascii_case(b)
}

fn unsuitable(tree: &Tree<'_>, directive: &Directive, what: impl Into<String>) -> NginxError {
    NginxError::Unsuitable { line: tree.line(directive.span.start), what: what.into() }
}

/// A location, with the blocks around it.
struct Location<'t> {
    directive: &'t Directive,
    around: Vec<&'t Directive>,
}

impl Location<'_> {
    /// Whether this is the innermost location of a `proxy_pass`.
    fn has(&self, pass: &Pass<'_>) -> bool {
        innermost(pass).is_some_and(|at| std::ptr::eq(pass.around[at], self.directive))
    }

    fn is_around(&self, pass: &Pass<'_>) -> bool {
        pass.around.iter().any(|block| std::ptr::eq(*block, self.directive))
    }
}

/// Which of the blocks around a `proxy_pass` is its location.
fn innermost(pass: &Pass<'_>) -> Option<usize> {
    pass.around.iter().rposition(|block| block.is("location"))
}

type Group<'s, 't> = (Location<'t>, Vec<&'s Pass<'t>>);

struct Planner<'s, 't> {
    tree: &'s Tree<'s>,
    survey: &'s Survey<'t>,
    target: &'s Target,
    moving: &'s [&'s Upstream<'t>],
    plan: Plan,
    /// How many locations were made.
    splits: usize,
}

impl<'s, 't> Planner<'s, 't> {
    fn moves(&self, pass: &Pass<'_>) -> bool {
        self.moving.iter().any(|upstream| pass.is_to(upstream.name))
    }

    fn line(&self, directive: &Directive) -> usize {
        self.tree.line(directive.span.start)
    }

    /// Comments out the servers and puts the destination in their place.
    fn upstream(&mut self, upstream: &Upstream<'t>) -> Result<(), NginxError> {
        let name = text(upstream.name);
        if !upstream.name.iter().all(|&byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte)) {
            let what = format!("upstream {name} has a name that can't be written as it stands");
            return Err(unsuitable(self.tree, upstream.directive, what));
        }
        for child in upstream.directive.children() {
            let is_lua = child.name().ends_with(b"_by_lua_block") || child.name().ends_with(b"_by_lua_file");
            if child.is("include") || child.is("state") || is_lua {
                let setting = text(child.name());
                let what = format!(
                    "{setting} in upstream {name} brings servers that can't be seen from here: write them as `server` lines"
                );
                return Err(unsuitable(self.tree, child, what));
            }
            if !BALANCING.iter().any(|known| child.is(known)) {
                self.note(
                    child,
                    &text(child.name()),
                    &format!("kept in upstream {name}: see that it fits the destination, which speaks HTTPS"),
                );
            }
        }
        let Some((first, others)) = upstream.servers.split_first() else {
            return Err(unsuitable(self.tree, upstream.directive, format!("upstream {name} has no server")));
        };
        let server = format!("server {};", self.target.address.as_str());
        self.replace(first.span.clone(), server.into_bytes());
        others.iter().for_each(|server| self.remove(&server.span));
        self.plan.moved.push(Moved {
            name,
            line: self.line(upstream.directive),
            servers: upstream.servers.iter().map(|server| arguments(server)).collect(),
        });
        Ok(())
    }

    /// The locations of what moves, each with all of it.
    fn locations(&self) -> Result<Vec<Group<'s, 't>>, NginxError> {
        let mut groups: Vec<Group<'s, 't>> = Vec::new();
        for pass in self.survey.passes.iter().filter(|pass| self.moves(pass)) {
            let at = innermost(pass).ok_or_else(|| {
                unsuitable(self.tree, pass.directive, "a proxy_pass outside of any location")
            })?;
            match groups.iter_mut().find(|(location, _)| location.has(pass)) {
                Some((_, passes)) => passes.push(pass),
                None => {
                    let location =
                        Location { directive: pass.around[at], around: pass.around[..at].to_vec() };
                    groups.push((location, vec![pass]));
                }
            }
        }
        Ok(groups)
    }

    fn location(&mut self, location: &Location<'t>, passes: &[&Pass<'t>]) -> Result<(), NginxError> {
        let survey = self.survey;
        let stays = |pass: &&Pass<'_>| !self.moves(pass) && pass.may_be_tls() && location.is_around(pass);
        let staying: Vec<&Pass<'_>> = survey.passes.iter().filter(stays).collect();
        if !staying.is_empty() {
            return self.split(location, passes, &staying);
        }
        let depth = location.around.len();
        let first = passes.iter().map(|pass| *pass.around.get(depth + 1).unwrap_or(&pass.directive));
        let Some(first) = first.min_by_key(|directive| directive.span.start) else { return Ok(()) };
        let mut lines = self.tls_lines();
        lines.extend(self.host_lines(location));
        self.put_before(first, &lines);
        for child in location.directive.children() {
            if TLS_SETTINGS.contains(&child.name()) {
                self.remove(&child.span);
            }
        }
        passes.iter().try_for_each(|pass| self.pass(location, pass))
    }

    /// Gives what moves a location of its own, next to one whose own `proxy_pass` stays.
    ///
    /// nginx enters a `limit_except` before the rewrites of its location, so these would come too late: the server's
    /// own send the methods there, as its last ones. They see the path alone, so it has to be an exact location.
    fn split(
        &mut self,
        location: &Location<'t>,
        passes: &[&Pass<'t>],
        staying: &[&Pass<'_>],
    ) -> Result<(), NginxError> {
        let depth = location.around.len();
        let path = location.directive.argument(2).filter(|_| location.directive.argument(1) == Some(b"="));
        let pattern = path.and_then(exact_pattern);
        let server = location.around.last().filter(|block| block.is("server"));
        let is_own = |other: &&Pass<'_>| location.has(other) && other.around.len() == depth + 1;
        for pass in passes {
            let methods = pass.around.get(depth + 1).filter(|block| block.is("limit_except"));
            let (Some(pattern), Some(server), Some(methods), true) =
                (&pattern, server, methods, staying.iter().all(is_own))
            else {
                let what = format!(
                    "this location also sends requests elsewhere by TLS (line {}): its TLS settings can't serve both; \
                     make two locations of it",
                    self.line(staying[0].directive)
                );
                return Err(unsuitable(self.tree, location.directive, what));
            };
            self.splits += 1;
            let number = self.splits;
            let allowed = self.allowed(methods)?;
            let mut lines = vec![
                format!("set $sync_client_{number} \"$request_method:$uri\";").into_bytes(),
                format!("if ($sync_client_{number} ~ \"^(?!({allowed}):)[^:]+:{pattern}$\") {{").into_bytes(),
                format!("  rewrite ^ /.sync-client/{number} last;").into_bytes(),
                b"}".to_vec(),
            ];
            lines.extend(self.new_location(location, pass, &format!("/.sync-client/{number}")));
            self.put_last(server, location.directive, &lines);
            self.passes_on(pass, String::new());
            let why = format!(
                "those methods go to a location of their own, /.sync-client/{number}: TLS settings hold for all of a \
                 location, and line {} stays",
                self.line(staying[0].directive)
            );
            self.note(location.directive, "limit_except", &why);
        }
        Ok(())
    }

    /// The methods that a `limit_except` leaves alone, for a pattern.
    fn allowed(&self, methods: &Directive) -> Result<String, NginxError> {
        let mut names = Vec::new();
        for word in methods.words.iter().skip(1) {
            if !word.value.iter().all(|&byte| byte.is_ascii_alphabetic() || byte == b'_') {
                return Err(unsuitable(self.tree, methods, "limit_except with something that is no method"));
            }
            names.push(text(&word.value).to_ascii_uppercase());
        }
        // nginx does the same.
        if names.iter().any(|name| name == "GET") && !names.iter().any(|name| name == "HEAD") {
            names.push("HEAD".to_owned());
        }
        Ok(names.join("|"))
    }

    /// A location with the settings of another one and of the `limit_except` in it.
    fn new_location(&mut self, location: &Location<'t>, pass: &Pass<'t>, path: &str) -> Vec<Vec<u8>> {
        let settings = |block: &'t Directive| block.children().iter().filter(|child| child.block.is_none());
        let is_taken =
            |child: &&Directive| !NOT_TAKEN.contains(&child.name()) && !TLS_SETTINGS.contains(&child.name());
        let inner = pass.around[location.around.len() + 1];
        let is_overridden =
            |child: &&Directive| inner.children().iter().any(|other| other.name() == child.name());
        let outer = settings(location.directive).filter(is_taken).filter(|child| !is_overridden(child));
        let taken = outer.chain(settings(inner).filter(is_taken));
        let mut body: Vec<Vec<u8>> = vec![b"internal;".to_vec()];
        body.extend(taken.map(|child| self.tree.raw(&child.span).to_vec()));
        body.extend(self.tls_lines());
        body.extend(self.host_lines(location));
        body.push([b"proxy_pass https://", host(pass), b"$request_uri;"].concat());
        let body = body.into_iter().map(|line| [b"  ", &line[..]].concat());
        let first = format!("location = {path} {{").into_bytes();
        std::iter::once(first).chain(body).chain([b"}".to_vec()]).collect()
    }

    /// What a `proxy_pass` becomes.
    fn pass(&mut self, location: &Location<'t>, pass: &Pass<'t>) -> Result<(), NginxError> {
        let url = pass.directive.argument(1).unwrap_or_default();
        let scheme_len = url.iter().position(|&byte| byte == b':').map_or(0, |colon| colon + 3);
        let uri = &url[(scheme_len + host(pass).len()).min(url.len())..];
        let is_internal = location.directive.children().iter().any(|child| child.is("internal"));
        let kept = if is_internal {
            if !uri.iter().all(|&byte| byte.is_ascii_graphic() && !b";{}\"'\\#".contains(&byte)) {
                return Err(unsuitable(self.tree, pass.directive, "its URI part can't be kept as it stands"));
            }
            let why = "no client sends the path of this internal location: see that the destination serves this one";
            self.note(pass.directive, &arguments(pass.directive), why);
            text(uri)
        } else if is_rewritten(&pass.around) {
            "$request_uri".to_owned()
        } else {
            String::new()
        };
        self.passes_on(pass, kept);
        Ok(())
    }

    fn passes_on(&mut self, pass: &Pass<'t>, uri: String) {
        let to = format!("https://{}{uri}", text(host(pass)));
        let line = self.line(pass.directive);
        self.plan.passes.push(super::Pass { line, from: arguments(pass.directive), to: to.clone() });
        self.replace(pass.directive.words[1].span.clone(), to.into_bytes());
    }

    fn tls_lines(&self) -> Vec<Vec<u8>> {
        let mut lines = vec![
            "proxy_ssl_server_name on;".to_owned(),
            "proxy_ssl_name $host;".to_owned(),
            // nginx keeps one session for all names, and would find one name's certificate wrong for another.
            "proxy_ssl_session_reuse off;".to_owned(),
        ];
        match &self.target.trusted {
            None => lines.push("proxy_ssl_verify off;".to_owned()),
            Some(file) => lines.extend([
                "proxy_ssl_verify on;".to_owned(),
                // nginx's default, 1, is too few for a certificate with two intermediate ones.
                "proxy_ssl_verify_depth 4;".to_owned(),
                format!("proxy_ssl_trusted_certificate {};", file.as_str()),
            ]),
        }
        lines.into_iter().map(String::into_bytes).collect()
    }

    /// What is missing for the destination to get the client's `Host`, which decides there whose request it is.
    fn host_lines(&mut self, location: &Location<'t>) -> Vec<Vec<u8>> {
        let levels = std::iter::once(&location.directive).chain(location.around.iter().rev());
        let mut set = levels.map(|level| (*level, headers(level))).filter(|(_, headers)| !headers.is_empty());
        let (level, headers) = set.next().unwrap_or((location.directive, Vec::new()));
        if let Some(header) = headers.iter().find(|header| is_host(header)) {
            let value = header.argument(2).unwrap_or_default();
            if value == b"$proxy_host" || !value.contains(&b'$') {
                let why = "kept, though it is not the client's: see that the destination knows whose requests these are";
                self.note(header, &format!("proxy_set_header {}", arguments(header)), why);
            }
            return Vec::new();
        }
        let why = if headers.is_empty() {
            "added, for this file sets no header; those that nginx.conf may set no longer get to the destination from here"
        } else {
            "added: the destination needs the client's"
        };
        self.note(location.directive, "proxy_set_header Host", why);
        // Headers of an outer level hold only where there are none further in.
        let is_own = std::ptr::eq(level, location.directive);
        let inherited =
            headers.into_iter().filter(|_| !is_own).map(|header| self.tree.raw(&header.span).to_vec());
        inherited.chain([b"proxy_set_header Host $http_host;".to_vec()]).collect()
    }

    /// Says what stays as it is.
    fn leave(&mut self) {
        for upstream in &self.survey.upstreams {
            if self.moving.iter().any(|moving| std::ptr::eq(*moving, upstream)) {
                continue;
            }
            let why = match (upstream.name, self.survey.passes_to(upstream.name).next()) {
                (_, None) => "nothing in this file uses it",
                (b"follower_server", _) => "it serves this machine's own configuration",
                _ => "not among those that move; --upstream names others",
            };
            let line = self.line(upstream.directive);
            self.plan.left.push(Remark {
                line,
                what: format!("upstream {}", text(upstream.name)),
                why: why.to_owned(),
            });
        }
        for pass in &self.survey.passes {
            if self.moves(pass) {
                continue;
            }
            let is_upstream = self.survey.upstreams.iter().any(|upstream| pass.is_to(upstream.name));
            let why = match pass.goes {
                Goes::ByVariable { .. } => "a variable says where it goes",
                _ if is_upstream => "its upstream stays",
                _ => "it goes elsewhere",
            };
            let line = self.line(pass.directive);
            let what = format!("proxy_pass {}", arguments(pass.directive));
            self.plan.left.push(Remark { line, what, why: why.to_owned() });
        }
        self.plan.left.sort_by_key(|left| left.line);
    }

    fn note_surroundings(&mut self) {
        let survey = self.survey;
        for include in &survey.includes {
            self.note(include, &format!("include {}", arguments(include)), "not looked into");
        }
        if let Some(upstream) = survey.upstreams.iter().find(|upstream| upstream.name == b"follower_server") {
            let why = "this machine takes its configuration from a leader, and may overwrite this edit when it fetches \
                       it again: make the edit in the leader's copy of this file, or keep the follower from fetching";
            self.note(upstream.directive, "follower_server", why);
        }
        if self.target.address.is_name()
            && let Some(first) = self.moving.first()
        {
            let why = "a host name is looked up when nginx starts: while DNS spreads it can still mean this machine; an \
                       address can't";
            let what = self.target.address.as_str().to_owned();
            self.note(first.directive, &what, why);
        }
        self.plan.notes.sort_by_key(|note| note.line);
    }

    fn note(&mut self, directive: &Directive, what: &str, why: &str) {
        let line = self.line(directive);
        self.plan.notes.push(Remark { line, what: what.to_owned(), why: why.to_owned() });
    }

    fn replace(&mut self, span: Range<usize>, text: Vec<u8>) {
        self.plan.changes.push(Change { span, text });
    }

    /// Takes a directive out, with its line where it has one for itself.
    fn remove(&mut self, span: &Range<usize>) {
        let bytes = self.tree.bytes;
        let start = bytes[..span.start].iter().rposition(|&byte| byte == b'\n').map_or(0, |feed| feed + 1);
        let end = bytes[span.end..]
            .iter()
            .position(|&byte| byte == b'\n')
            .map_or(bytes.len(), |feed| span.end + feed + 1);
        let is_alone = is_blank(&bytes[start..span.start]) && is_blank(&bytes[span.end..end]);
        self.replace(if is_alone { start..end } else { span.clone() }, Vec::new());
    }

    /// What stands between a directive and one put before it: a new line with its indentation where it begins one.
    fn separator(&self, directive: &Directive) -> Vec<u8> {
        let before = &self.tree.bytes[..directive.span.start];
        let line = before.rsplit(|&byte| byte == b'\n').next().unwrap_or_default();
        if is_blank(line) { [self.end_of_line(), line].concat() } else { b" ".to_vec() }
    }

    fn end_of_line(&self) -> &'static [u8] {
        end_of_line(self.tree.bytes)
    }

    /// Puts lines behind all else in a block, indented as a directive of it is.
    fn put_last(&mut self, block: &Directive, like: &Directive, lines: &[Vec<u8>]) {
        let close = block.span.end - 1;
        let separator = self.separator(like);
        let separator = if separator == b" " { self.end_of_line().to_vec() } else { separator };
        let indent = separator.strip_prefix(self.end_of_line()).unwrap_or_default();
        let line = self.tree.bytes[..close].rsplit(|&byte| byte == b'\n').next().unwrap_or_default();
        if is_blank(line) {
            let put = lines.iter().flat_map(|line| [indent, line, self.end_of_line()].concat()).collect();
            self.replace(close - line.len()..close - line.len(), put);
        } else {
            let put: Vec<u8> = lines.iter().flat_map(|line| [&separator[..], line].concat()).collect();
            self.replace(close..close, [&put, self.end_of_line()].concat());
        }
    }

    fn put_before(&mut self, directive: &Directive, lines: &[Vec<u8>]) {
        let separator = self.separator(directive);
        let put: Vec<u8> = lines.iter().flat_map(|line| [line, &separator[..]].concat()).collect();
        self.replace(directive.span.start..directive.span.start, put);
    }
}

fn is_blank(bytes: &[u8]) -> bool {
    bytes.trim_ascii().is_empty()
}

/// A pattern for exactly this path; `None` where it holds what would need care in one.
fn exact_pattern(path: &[u8]) -> Option<String> {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/_-".contains(byte);
    let letters = path.iter().map(|byte| match byte {
        b'.' => Some("[.]".to_owned()),
        byte if is_plain(byte) => Some(char::from(*byte).to_string()),
        _ => None,
    });
    letters.collect()
}

/// What a `proxy_pass` that moves names.
fn host<'t>(pass: &Pass<'t>) -> &'t [u8] {
    match pass.goes {
        Goes::To { host, .. } => host,
        Goes::ByVariable { .. } => b"",
    }
}

fn headers(level: &Directive) -> Vec<&Directive> {
    level.children().iter().filter(|child| child.is("proxy_set_header")).collect()
}

fn is_host(header: &Directive) -> bool {
    header.argument(1).is_some_and(|name| is_same(name, b"Host"))
}

/// Whether a `rewrite` of a block around it, or of an `if` in one, may have changed the path.
fn is_rewritten(around: &[&Directive]) -> bool {
    let rewrites = |child: &Directive| {
        child.is("rewrite") || child.is("if") && child.all().iter().any(|inner| inner.is("rewrite"))
    };
    around.iter().any(|block| block.children().iter().any(rewrites))
}
