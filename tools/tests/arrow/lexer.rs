//! As much of Rust's lexing as the laws need: words and signs without comments and literals, the comments by line, and
//! the paths that code names.

/// A word or a sign, and its line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) text: String,
    pub(crate) line: usize,
}

/// A source file taken apart.
#[derive(Debug, Default)]
pub(crate) struct Source {
    pub(crate) tokens: Vec<Token>,
    /// Every line of every comment with its number.
    pub(crate) comments: Vec<(usize, String)>,
}

/// Takes a source file apart.
pub(crate) fn read(text: &str) -> Source {
    let mut lexer = Lexer { rest: text, line: 1, source: Source::default() };
    while !lexer.rest.is_empty() {
        lexer.step();
    }
    lexer.source
}

struct Lexer<'a> {
    rest: &'a str,
    line: usize,
    source: Source,
}

impl<'a> Lexer<'a> {
    /// Takes one comment, literal, word or sign.
    fn step(&mut self) {
        let rest = self.rest;
        let first = rest.chars().next().expect("there is something left");
        if rest.starts_with("//") {
            let comment = self.take(rest.find('\n').unwrap_or(rest.len()));
            self.source.comments.push((self.line, comment.to_string()));
        } else if rest.starts_with("/*") {
            let line = self.line;
            let comment = self.take(block_comment(rest));
            self.source.comments.extend((line..).zip(comment.lines().map(str::to_string)));
        } else if let Some(length) = literal(rest) {
            self.take(length);
        } else if is_word(first) {
            let word = self.take(rest.find(|c| !is_word(c)).unwrap_or(rest.len()));
            self.push(word);
        } else if first == '\'' {
            // A lifetime: the quote and the word together are one token, so that 'static is not static.
            let length = rest[1..].find(|c| !is_word(c)).map_or(rest.len(), |length| length + 1);
            let lifetime = self.take(length);
            self.push(lifetime);
        } else if first.is_whitespace() {
            self.take(first.len_utf8());
        } else {
            let sign = self.take(if rest.starts_with("::") { 2 } else { first.len_utf8() });
            self.push(sign);
        }
    }

    fn take(&mut self, length: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at(length);
        self.rest = rest;
        self.line += taken.matches('\n').count();
        taken
    }

    fn push(&mut self, token: &str) {
        self.source.tokens.push(Token { text: token.to_string(), line: self.line });
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The length of a block comment with those inside it.
fn block_comment(text: &str) -> usize {
    let (mut at, mut depth) = (0, 0);
    while at < text.len() {
        if text[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if text[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += text[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

/// The length of a string or character literal at the beginning of `text`, if there is one.
fn literal(text: &str) -> Option<usize> {
    let prefix = ["br", "cr", "b", "c", "r", ""].into_iter().find(|prefix| {
        let after = text.strip_prefix(prefix).unwrap_or_default();
        after.starts_with('"')
            || prefix.ends_with('r') && after.trim_start_matches('#').starts_with('"') && after.starts_with('#')
    });
    if let Some(prefix) = prefix {
        let after = &text[prefix.len()..];
        return Some(prefix.len() + if prefix.ends_with('r') { raw_string(after) } else { quoted(after, '"') });
    }
    let after = text.strip_prefix('b').unwrap_or(text);
    let mut chars = after.strip_prefix('\'')?.chars();
    let is_character = chars.next() == Some('\\') || chars.next() == Some('\'');
    is_character.then(|| text.len() - after.len() + quoted(after, '\''))
}

fn raw_string(text: &str) -> usize {
    let hashes = text.find('"').unwrap_or(0);
    let end = format!("\"{}", &text[..hashes]);
    text[hashes + 1..].find(&end).map_or(text.len(), |found| hashes + 1 + found + end.len())
}

/// The length of a literal that begins and ends with `quote` and may escape it.
fn quoted(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return at + c.len_utf8(),
            _ => {}
        }
    }
    text.len()
}

/// The tokens without the items that only tests see.
pub(crate) fn without_tests(tokens: &[Token]) -> Vec<Token> {
    let (mut kept, mut at) = (Vec::new(), 0);
    while at < tokens.len() {
        let only_tests = [&["#", "[", "cfg", "(", "test"][..], &["#", "[", "cfg", "(", "all", "(", "test"]];
        if only_tests.iter().any(|attribute| begins_with(&tokens[at..], attribute)) {
            at += item(&tokens[at..]);
        } else {
            kept.push(tokens[at].clone());
            at += 1;
        }
    }
    kept
}

pub(crate) fn begins_with(tokens: &[Token], words: &[&str]) -> bool {
    tokens.len() >= words.len() && tokens.iter().zip(words).all(|(token, word)| token.text == *word)
}

/// The length of an item with its attributes: up to its closing brace, or its semicolon.
fn item(tokens: &[Token]) -> usize {
    let mut depth = 0usize;
    for (at, token) in tokens.iter().enumerate() {
        match token.text.as_str() {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" => depth = depth.saturating_sub(1),
            "}" => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return at + 1;
                }
            }
            ";" if depth == 0 => return at + 1,
            _ => {}
        }
    }
    tokens.len()
}

/// Every path that the code names, with its line; those of an import with all its branches written out.
pub(crate) fn paths(tokens: &[Token]) -> Vec<(String, usize)> {
    let (mut found, mut at) = (Vec::new(), 0);
    while at < tokens.len() {
        if tokens[at].text == "use" {
            at += 1;
            import(tokens, &mut at, &[], &mut found);
        } else if tokens[at].text.starts_with(is_word) {
            let line = tokens[at].line;
            let mut words = vec![tokens[at].text.as_str()];
            while at + 2 < tokens.len() && tokens[at + 1].text == "::" && tokens[at + 2].text.starts_with(is_word) {
                at += 2;
                words.push(&tokens[at].text);
            }
            found.push((words.join("::"), line));
            at += 1;
        } else {
            at += 1;
        }
    }
    found
}

/// Writes out one branch of an import, and leaves `at` behind it.
fn import(tokens: &[Token], at: &mut usize, before: &[&str], found: &mut Vec<(String, usize)>) {
    let mut words: Vec<&str> = before.to_vec();
    let mut line = tokens.get(*at).map_or(0, |token| token.line);
    while let Some(token) = tokens.get(*at) {
        match token.text.as_str() {
            "," | "}" | ";" => break,
            "as" => *at += 2,
            "::" => *at += 1,
            "{" => {
                *at += 1;
                while tokens.get(*at).is_some_and(|token| token.text != "}") {
                    import(tokens, at, &words, found);
                    *at += usize::from(tokens.get(*at).is_some_and(|token| token.text == ","));
                    if tokens.get(*at).is_some_and(|token| token.text == ";") {
                        break;
                    }
                }
                *at += 1;
                return;
            }
            word => {
                line = token.line;
                if word != "self" || words.is_empty() {
                    words.push(word);
                }
                *at += 1;
            }
        }
    }
    found.push((words.join("::"), line));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        read(text).tokens.into_iter().map(|token| token.text).collect()
    }

    #[test]
    fn literals_and_comments_are_not_code() {
        let text = r##"a "b\"c" /* d /* e */ f */ 'g' '\'' b'h' b"i" r#"j"k"# 'l: m // n
        o r#p"##;
        assert_eq!(words(text), ["a", "'l", ":", "m", "o", "r", "#", "p"]);
        let comments = read("// one\n/* two\nthree */ x").comments;
        assert_eq!(comments, [(1, "// one".to_string()), (2, "/* two".to_string()), (3, "three */".to_string())]);
    }

    #[test]
    fn a_token_knows_its_line() {
        let lines: Vec<usize> = read("a\n\"x\ny\" b\n/*\n*/ c").tokens.iter().map(|token| token.line).collect();
        assert_eq!(lines, [1, 3, 5]);
    }

    #[test]
    fn imports_are_written_out() {
        let found = paths(&read("use a::{b, c::{self, d as e}, f::*}; use g; h::i::<J>(::k::l)").tokens);
        let found: Vec<String> = found.into_iter().map(|(path, _)| path).collect();
        assert_eq!(found, ["a::b", "a::c", "a::c::d", "a::f::*", "g", "h::i", "J", "k::l"]);
    }

    #[test]
    fn an_import_that_never_ends_ends_the_search() {
        assert_eq!(paths(&read("use a::{b, {c").tokens).len(), 2);
        assert_eq!(paths(&read("use a::{b; x").tokens).len(), 2);
    }

    #[test]
    fn items_of_tests_are_left_out() {
        let text =
            "a; #[cfg(test)] mod tests { b; { c } } d; #[cfg(test)] #[x(y)] use e; f; #[cfg(all(test, g))] fn h() {} i";
        let kept: Vec<String> = without_tests(&read(text).tokens).into_iter().map(|token| token.text).collect();
        assert_eq!(kept, ["a", ";", "d", ";", "f", ";", "i"]);
    }
}
