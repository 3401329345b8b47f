//! Patterns for names, as shells have them: `*` any characters, `?` one, `[a-z]` one of a set,
//! `[!a-z]` one that is not, `\` takes the next character as it is.

/// Whether a name matches a pattern.
pub fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    let (mut p, mut n) = (0, 0);
    // Where the last star stands and how much of the name it has taken: the one place to come back
    // to, which keeps this linear in practice and quadratic at worst.
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        match (pattern.get(p), name.get(n)) {
            (Some('*'), _) => {
                star = Some((p, n));
                p += 1;
                continue;
            }
            (Some(_), Some(c)) => {
                let (used, fits) = one(pattern.get(p..).unwrap_or_default(), *c);
                if fits {
                    p += used;
                    n += 1;
                    continue;
                }
            }
            _ => {}
        }
        let Some((at, taken)) = star else { return false };
        star = Some((at, taken + 1));
        (p, n) = (at + 1, taken + 1);
    }
    pattern.get(p..).unwrap_or_default().iter().all(|c| *c == '*')
}

/// How many characters of the pattern its first element takes, and whether `c` fits it.
fn one(pattern: &[char], c: char) -> (usize, bool) {
    match pattern {
        ['?', ..] => (1, true),
        ['\\', next, ..] => (2, *next == c),
        ['[', rest @ ..] => match set(rest) {
            Some((used, not, members)) => (used + 1, in_set(members, c) != not),
            // A bracket that is never closed is a character like others.
            None => (1, c == '['),
        },
        [first, ..] => (1, *first == c),
        [] => (0, false),
    }
}

/// The set behind a bracket: characters used with the closing one, whether it is inverted, members.
fn set(rest: &[char]) -> Option<(usize, bool, &[char])> {
    let not = matches!(rest, ['!' | '^', ..]);
    let from = usize::from(not);
    // A closing bracket that comes first is a member.
    let end = rest.iter().skip(from + 1).position(|c| *c == ']')? + from + 1;
    Some((end + 1, not, rest.get(from..end)?))
}

fn in_set(mut members: &[char], c: char) -> bool {
    while let Some((first, rest)) = members.split_first() {
        match rest {
            ['-', last, more @ ..] => {
                if (*first..=*last).contains(&c) {
                    return true;
                }
                members = more;
            }
            _ if *first == c => return true,
            _ => members = rest,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn patterns_match_as_in_a_shell() {
        for (pattern, name) in [
            ("*", ""),
            ("*.txt", "a.txt"),
            ("a*b*c", "a-b-b-c"),
            ("?", "ü"),
            ("[a-c]x", "bx"),
            ("[!a-c]x", "dx"),
            ("[]]", "]"),
            ("[a-]", "-"),
            ("\\*", "*"),
            ("[", "["),
            ("", ""),
        ] {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in
            [("*.txt", "a.txt.gz"), ("?", ""), ("?", "ab"), ("[a-c]x", "dx"), ("[!a-c]x", "ax"), ("\\*", "x"), ("a*b", "ac"), ("", "a")]
        {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
    }

    #[test]
    fn many_stars_end_soon() {
        assert!(!matches(&"a*".repeat(30), &format!("{}b", "a".repeat(3000)).replace('a', "c")));
        assert!(!matches(&format!("{}c", "*a".repeat(30)), &"a".repeat(3000)));
    }
}
