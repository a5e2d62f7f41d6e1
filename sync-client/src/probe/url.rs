//! Where the API of an account is: a URL with `{username}` in it, from the plan.
//!
//! What parses is `https` (or `http`, which [`super::api`] only uses on loopback), has a host, no user, no query, and a
//! place for the account's name: in the host (`https://{username}.example.com`) or in the path (`https://host/{username}`).

use serde::Deserialize;
use ureq::http::Uri;
use ureq::http::uri::Scheme;

/// What stands for an account's name.
const PLACE: &str = "{username}";

/// The API's address, for any account.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct ApiUrl(String);

impl ApiUrl {
    /// The API of one account, without a slash at its end.
    pub(crate) fn of(&self, username: &str) -> String {
        self.0.replace(PLACE, username)
    }

    /// The page that accounts are used from, `https://sw.DOMAIN`: cores let in what comes from there.
    pub(crate) fn origin(&self) -> String {
        let uri = self.example();
        let host = uri.as_ref().and_then(Uri::host).unwrap_or_default();
        format!("https://sw.{}", host.split_once('.').map_or(host, |(_, domain)| domain))
    }

    /// Whether what is sent can be read on its way.
    pub(crate) fn is_plain(&self) -> bool {
        self.example().and_then(|uri| uri.scheme().cloned()) == Some(Scheme::HTTP)
    }

    /// The port that requests go to.
    pub(crate) fn port(&self) -> u16 {
        let port = self.example().and_then(|uri| uri.port_u16());
        port.unwrap_or(if self.is_plain() { 80 } else { 443 })
    }

    fn example(&self) -> Option<Uri> {
        self.of("name").parse().ok()
    }
}

impl TryFrom<String> for ApiUrl {
    type Error = String;

    fn try_from(text: String) -> Result<ApiUrl, String> {
        let url = ApiUrl(text.trim_end_matches('/').to_owned());
        let refused =
            |why: &str| Err(format!("{text:?} {why}: write https://{PLACE}.DOMAIN, or https://HOST/{PLACE}"));
        let Some(uri) = url.example() else { return refused("is no URL") };
        if !matches!(uri.scheme_str(), Some("https" | "http")) || uri.host().is_none_or(str::is_empty) {
            return refused("names no host to ask over https");
        }
        if uri.authority().is_some_and(|authority| authority.as_str().contains('@'))
            || uri.query().is_some()
            || text.contains('#')
        {
            return refused("has a user, a query or a fragment");
        }
        if text.matches(PLACE).count() != 1 {
            return refused("needs one place for the account's name");
        }
        Ok(url)
    }
}

/// Whether a name can stand in a host and in a path as it is.
pub(crate) fn is_username(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !name.is_empty() && name.len() <= 60 && !name.starts_with('-') && name.bytes().all(is_plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Result<ApiUrl, String> {
        ApiUrl::try_from(text.to_owned())
    }

    #[test]
    fn the_name_stands_in_the_host_or_in_the_path() {
        for (text, of, origin, port) in [
            ("https://{username}.example.com", "https://ann.example.com", "https://sw.example.com", 443),
            (
                "https://co1.example.com:4443/{username}/",
                "https://co1.example.com:4443/ann",
                "https://sw.example.com",
                4443,
            ),
            ("http://localhost/{username}", "http://localhost/ann", "https://sw.localhost", 80),
        ] {
            let url = url(text).unwrap();
            assert_eq!((url.of("ann").as_str(), url.origin().as_str(), url.port()), (of, origin, port));
        }
    }

    #[test]
    fn what_is_no_address_of_accounts_is_refused() {
        for (text, why) in [
            ("", "no URL"),
            ("https://example.com", "place for"),
            ("https://{username}.{username}.com", "place for"),
            ("ftp://{username}.example.com", "no host"),
            ("/{username}", "no host"),
            ("https://u:p@example.com/{username}", "a user,"),
            ("https://example.com/{username}?auth=x", "a query"),
            ("https://example.com/{username}#x", "a query"),
        ] {
            let error = url(text).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn names_that_lead_to_another_host_or_path_are_none() {
        assert!(is_username("probe-1"));
        for name in ["", "a/b", "a.evil.org", "-a", "A", "a@b", "a?b", "é"] {
            assert!(!is_username(name), "{name}");
        }
    }
}
