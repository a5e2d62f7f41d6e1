//! What a configuration has: upstreams, and whatever sends requests to one.

use super::tree::{Directive, Tree};

/// An `upstream` of HTTP.
#[derive(Debug)]
pub(super) struct Upstream<'t> {
    pub(super) name: &'t [u8],
    pub(super) directive: &'t Directive,
    pub(super) servers: Vec<&'t Directive>,
}

/// A `proxy_pass` of HTTP.
#[derive(Debug)]
pub(super) struct Pass<'t> {
    pub(super) directive: &'t Directive,
    /// The blocks around it, the outermost first.
    pub(super) around: Vec<&'t Directive>,
    pub(super) goes: Goes<'t>,
}

/// Where a `proxy_pass` sends requests.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Goes<'t> {
    /// To what is called so: an upstream, or else a host.
    To { is_tls: bool, host: &'t [u8] },
    /// A variable decides.
    ByVariable { may_be_tls: bool },
}

/// All of it.
#[derive(Debug)]
pub(super) struct Survey<'t> {
    pub(super) upstreams: Vec<Upstream<'t>>,
    pub(super) passes: Vec<Pass<'t>>,
    /// `fastcgi_pass` and the like.
    pub(super) other_passes: Vec<&'t Directive>,
    pub(super) includes: Vec<&'t Directive>,
}

impl<'t> Survey<'t> {
    /// Looks through a file, which may be all of a configuration or what its `http` block includes.
    pub(super) fn new(tree: &'t Tree<'_>) -> Survey<'t> {
        let mut survey = Survey {
            upstreams: Vec::new(),
            passes: Vec::new(),
            other_passes: Vec::new(),
            includes: Vec::new(),
        };
        survey.look(&tree.directives, &mut Vec::new());
        survey
    }

    fn look(&mut self, directives: &'t [Directive], around: &mut Vec<&'t Directive>) {
        for directive in directives {
            match directive.name() {
                // Their `proxy_pass` and `upstream` are other ones.
                b"stream" | b"mail" => {}
                b"upstream" if is_http_level(around) => self.upstreams.extend(upstream(directive)),
                b"proxy_pass" => self.passes.extend(pass(directive, around)),
                b"include" => self.includes.push(directive),
                b"fastcgi_pass" | b"uwsgi_pass" | b"scgi_pass" | b"grpc_pass" | b"memcached_pass" => {
                    self.other_passes.push(directive);
                }
                _ => {
                    around.push(directive);
                    self.look(directive.children(), around);
                    around.pop();
                }
            }
        }
    }

    /// What sends requests to an upstream.
    pub(super) fn passes_to(&self, name: &[u8]) -> impl Iterator<Item = &Pass<'t>> {
        self.passes.iter().filter(move |pass| pass.is_to(name))
    }
}

impl Pass<'_> {
    pub(super) fn is_to(&self, name: &[u8]) -> bool {
        matches!(self.goes, Goes::To { host, .. } if host.eq_ignore_ascii_case(name))
    }

    /// Whether TLS settings of its location matter to it.
    pub(super) fn may_be_tls(&self) -> bool {
        match self.goes {
            Goes::To { is_tls, .. } => is_tls,
            Goes::ByVariable { may_be_tls } => may_be_tls,
        }
    }
}

fn is_http_level(around: &[&Directive]) -> bool {
    around.iter().all(|block| block.is("http"))
}

fn upstream(directive: &Directive) -> Option<Upstream<'_>> {
    let servers = directive.children().iter().filter(|child| child.is("server")).collect();
    Some(Upstream { name: directive.argument(1)?, directive, servers })
}

fn pass<'t>(directive: &'t Directive, around: &[&'t Directive]) -> Option<Pass<'t>> {
    let goes = goes(directive.argument(1)?);
    Some(Pass { directive, around: around.to_vec(), goes })
}

fn goes(url: &[u8]) -> Goes<'_> {
    let after = |scheme: &str| {
        let start = url.get(..scheme.len())?;
        start.eq_ignore_ascii_case(scheme.as_bytes()).then(|| &url[scheme.len()..])
    };
    let (is_tls, rest) = match (after("http://"), after("https://")) {
        (Some(rest), _) => (false, rest),
        (_, Some(rest)) => (true, rest),
        // A variable may hold the scheme too; nginx takes nothing else.
        _ => return Goes::ByVariable { may_be_tls: true },
    };
    let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?' | b'$')).unwrap_or(rest.len());
    let host = &rest[..end];
    // These begin with a slash, so the host's name ends before them.
    let paths = ["$request_uri", "$uri", "$document_uri"];
    let begins_path = |text: &[u8]| {
        paths.iter().any(|path| {
            let behind = text.strip_prefix(path.as_bytes());
            behind.is_some_and(|rest| {
                !rest.first().is_some_and(|&byte| byte.is_ascii_alphanumeric() || byte == b'_')
            })
        })
    };
    match rest.get(end) {
        Some(b'$') if host.is_empty() || !begins_path(&rest[end..]) => {
            Goes::ByVariable { may_be_tls: is_tls }
        }
        _ => Goes::To { is_tls, host },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pass_goes_to_a_name_or_where_a_variable_says() {
        let to = |is_tls, host: &'static str| Goes::To { is_tls, host: host.as_bytes() };
        let by_variable = |may_be_tls| Goes::ByVariable { may_be_tls };
        for (url, expected) in [
            ("http://core_server", to(false, "core_server")),
            ("HTTP://core_server/", to(false, "core_server")),
            ("https://sw.example.org/a?b", to(true, "sw.example.org")),
            ("http://core_server$request_uri", to(false, "core_server")),
            ("http://core_server$uri$is_args$args", to(false, "core_server")),
            ("http://core_server/$1", to(false, "core_server")),
            ("http://core_server:80/", to(false, "core_server:80")),
            ("http://core_server$uri_suffix", by_variable(false)),
            ("https://core$suffix", by_variable(true)),
            ("http://$backend", by_variable(false)),
            ("$backend", by_variable(true)),
            ("http://${backend}/x", by_variable(false)),
        ] {
            assert_eq!(goes(url.as_bytes()), expected, "{url}");
        }
    }

    #[test]
    fn upstreams_of_other_kinds_are_not_taken_for_those_of_http() {
        let text = b"stream { upstream a { server b:1; } server { proxy_pass a; } }
            http { upstream c { server d:1; server e:1; } server { location / { proxy_pass http://c; } } }";
        let tree = Tree::parse(text).expect("it is right");
        let survey = Survey::new(&tree);
        let names: Vec<_> = survey.upstreams.iter().map(|u| (u.name, u.servers.len())).collect();
        assert_eq!(names, [(&b"c"[..], 2)]);
        assert_eq!(survey.passes.len(), 1);
    }
}
