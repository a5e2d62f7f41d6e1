//! `--chmod`: rsync's comma-separated changes of permission bits.

use protocol::options::{ModeChange, ModeCopy};

/// Parses the argument of `--chmod`. A change without a class leaves the bits of `umask` alone.
///
/// # Errors
/// The part that is not understood.
///
/// # Source
/// rsync(1) 3.5.0, `--chmod`; chmod(1) for the symbolic form.
pub(crate) fn parse(argument: &str, umask: u16) -> Result<Vec<ModeChange>, String> {
    let changes = argument.split(',').map(|part| parse_one(part, umask)).collect::<Result<Vec<_>, _>>()?;
    Ok(changes.into_iter().flatten().collect())
}

fn parse_one(part: &str, umask: u16) -> Result<Vec<ModeChange>, String> {
    let (directories, files, rest) = match part.as_bytes().first() {
        Some(b'D') => (true, false, &part[1..]),
        Some(b'F') => (false, true, &part[1..]),
        _ => (true, true, part),
    };
    let wrong = || format!("--chmod: {part:?} is not understood; write for example D755,F644 or go-w,u+rwX");
    if !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit()) {
        let mode = u16::from_str_radix(rest, 8).ok().filter(|&mode| mode <= 0o7777).ok_or_else(wrong)?;
        return Ok(vec![ModeChange {
            directories,
            files,
            clear: 0o7777,
            set: mode,
            ..ModeChange::default()
        }]);
    }
    let at = rest.find(['+', '-', '=']).ok_or_else(wrong)?;
    let (who, action) = rest.split_at(at);
    let spared = if who.is_empty() { umask } else { 0 };
    let who = who_bits(who).ok_or_else(wrong)?;
    let (operator, what) = action.split_at(1);
    let mut bits = 0;
    let mut conditional = 0;
    let mut copy = None;
    for letter in what.chars() {
        match letter {
            'r' => bits |= who & 0o444 & !spared,
            'w' => bits |= who & 0o222 & !spared,
            'x' => bits |= who & 0o111 & !spared,
            'X' => conditional |= who & 0o111 & !spared,
            's' => bits |= who & 0o6000,
            't' => bits |= 0o1000,
            'u' | 'g' | 'o' if what.len() == 1 && operator != "-" => {
                let shift = [('u', 6), ('g', 3), ('o', 0)].into_iter().find(|&(class, _)| class == letter);
                copy = shift.map(|(_, shift)| ModeCopy { shift, to: who & 0o777 });
            }
            _ => return Err(wrong()),
        }
    }
    let change = ModeChange { directories, files, copy, ..ModeChange::default() };
    Ok(vec![match operator {
        "+" => ModeChange { set: bits, set_if_executable: conditional, ..change },
        "-" => ModeChange { clear: bits | conditional, ..change },
        _ => {
            // Where bits are copied rsync also clears the special bit of each class that gets them.
            let special = |class: u16, bit: u16| if copy.is_some() && who & class != 0 { bit } else { 0 };
            let special = special(0o700, 0o4000) | special(0o070, 0o2000) | special(0o007, 0o1000);
            ModeChange { clear: who & 0o777 | special, set: bits, set_if_executable: conditional, ..change }
        }
    }])
}

fn who_bits(who: &str) -> Option<u16> {
    if who.is_empty() {
        return Some(0o7777);
    }
    who.chars().try_fold(0, |bits, letter| match letter {
        'u' => Some(bits | 0o4700),
        'g' => Some(bits | 0o2070),
        'o' => Some(bits | 0o007),
        'a' => Some(bits | 0o6777),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_apply_as_chmod_would() {
        for (argument, before, is_dir, after) in [
            ("D755,F644", 0o700, true, 0o755),
            ("D755,F644", 0o700, false, 0o644),
            ("go-w", 0o666, false, 0o644),
            ("u+rwX,go=", 0o055, false, 0o700),
            ("a+X", 0o600, false, 0o600),
            ("a+X", 0o600, true, 0o711),
            ("u+s,+t", 0o755, false, 0o5755),
            ("u-s", 0o4755, false, 0o755),
            ("F+w", 0o444, false, 0o644),
            ("F=rw", 0o666, false, 0o644),
            ("F-w", 0o666, false, 0o466),
            ("D=rwx", 0o2750, true, 0o2755),
            ("u=rwX,go=", 0o7777, false, 0o7700),
            ("g=u,o=g", 0o750, false, 0o777),
            ("g=u,o=g", 0o7777, false, 0o4777),
            ("g=u", 0o2750, false, 0o770),
            ("o+g", 0o741, false, 0o745),
            ("go=u", 0o4705, true, 0o4777),
        ] {
            let changes = parse(argument, 0o022).unwrap();
            let mode = changes.iter().fold(before, |mode, change| change.apply(mode, is_dir));
            assert_eq!(mode, after, "{argument} {before:o}");
        }
        for argument in ["", "x", "D", "u~x", "99999", "8", "q+x", "u+q", "u=gx", "g-u"] {
            assert!(parse(argument, 0o022).is_err(), "{argument}");
        }
    }
}
