//! The manual: no link leads nowhere, no file is named that isn't there, and every page is in the table of contents.
#![cfg(test)]

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::{Path, PathBuf},
};

use crate::root;

/// Folders whose files code spans name from the top of the project.
const TOP: &[&str] = &["dist", "docs", "fuzz", "handler-api", "handlers", "libtcmu", "tcmu-runnerd", "tests", "xtask"];

/// A page, without its code.
struct Page {
    /// Line by line; in code blocks the lines are empty.
    text: Vec<String>,
    anchors: Vec<String>,
}

impl Page {
    fn parse(source: &str) -> Page {
        let mut page = Page { text: Vec::new(), anchors: Vec::new() };
        let mut counts: HashMap<String, usize> = HashMap::new();
        let mut fence = None;
        for line in source.lines() {
            let marks = line.trim_start();
            let here = ["```", "~~~"].into_iter().find(|mark| marks.starts_with(mark));
            if here.is_some() && (fence.is_none() || fence == here) {
                fence = if fence.is_none() { here } else { None };
                page.text.push(String::new());
                continue;
            }
            if fence.is_some() {
                page.text.push(String::new());
                continue;
            }
            if let Some(heading) = line.strip_prefix('#') {
                let slug = slug(heading.trim_start_matches('#'));
                let count = counts.entry(slug.clone()).or_default();
                page.anchors.push(if *count == 0 { slug } else { format!("{slug}-{count}") });
                *count += 1;
            }
            page.text.push(line.to_owned());
        }
        page
    }

    /// What links lead to, with their lines.
    fn links(&self) -> Vec<(usize, String)> {
        let mut links = Vec::new();
        for (number, line) in self.text.iter().enumerate() {
            let line = without_code(line);
            let mut rest = line.as_str();
            while let Some((_, behind)) = rest.split_once("](") {
                let Some((target, behind)) = behind.split_once(')') else { break };
                links.push((number + 1, target.split_whitespace().next().unwrap_or_default().to_owned()));
                rest = behind;
            }
        }
        links
    }

    /// What stands between backquotes, with its lines.
    fn code(&self) -> Vec<(usize, String)> {
        let parts = |(number, line): (usize, &String)| {
            let spans: Vec<_> = line.split('`').skip(1).step_by(2).map(|span| (number + 1, span.to_owned())).collect();
            spans
        };
        self.text.iter().enumerate().flat_map(parts).collect()
    }
}

fn without_code(line: &str) -> String {
    line.split('`').step_by(2).collect::<Vec<_>>().join("x")
}

/// A heading's anchor, as GitHub and mdBook make it.
fn slug(heading: &str) -> String {
    let kept = heading.trim().chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

fn is_external(target: &str) -> bool {
    target.contains("://") || target.starts_with("mailto:")
}

/// Every page of the tree, by its path.
fn pages() -> BTreeMap<PathBuf, Page> {
    let mut pages = BTreeMap::new();
    let mut dirs = vec![root()];
    while let Some(dir) = dirs.pop() {
        for path in fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_dir() && !path.is_symlink() && name != "target" && !name.starts_with('.') {
                dirs.push(path);
            } else if name.ends_with(".md") {
                let source = fs::read_to_string(&path).unwrap();
                pages.insert(path, Page::parse(&source));
            }
        }
    }
    pages
}

fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::ParentDir => {
                normal.pop();
            }
            std::path::Component::CurDir => {}
            part => normal.push(part),
        }
    }
    normal
}

#[test]
fn no_link_leads_nowhere() {
    let pages = pages();
    let mut dead = Vec::new();
    for (path, page) in &pages {
        for (line, link) in page.links().into_iter().filter(|(_, link)| !is_external(link)) {
            let (file, anchor) = link.split_once('#').map_or((link.as_str(), None), |(file, anchor)| (file, Some(anchor)));
            let target = if file.is_empty() { path.clone() } else { normal(&path.with_file_name(file)) };
            let found = match (pages.get(&target), anchor) {
                (Some(page), Some(anchor)) => page.anchors.iter().any(|known| known == anchor),
                (Some(_), None) => true,
                (None, Some(_)) => false,
                (None, None) => target.exists(),
            };
            if !found {
                dead.push(format!("{}:{line}: {link}", path.display()));
            }
        }
    }
    assert!(dead.is_empty(), "dead links:\n{}", dead.join("\n"));
}

#[test]
fn every_file_that_is_named_is_there() {
    let is_path = |span: &str| {
        let top = span.split('/').next().unwrap_or_default();
        let plain = span.chars().all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c));
        plain && span.contains('/') && TOP.contains(&top)
    };
    let mut missing = Vec::new();
    for (path, page) in pages() {
        for (line, span) in page.code().into_iter().filter(|(_, span)| is_path(span)) {
            if !root().join(&span).exists() {
                missing.push(format!("{}:{line}: {span}", path.display()));
            }
        }
    }
    assert!(missing.is_empty(), "not there:\n{}", missing.join("\n"));
}

/// As a book they have nothing around them.
#[test]
fn pages_of_the_book_link_to_pages_of_the_book() {
    let docs = root().join("docs");
    let mut outside = Vec::new();
    for (path, page) in pages().iter().filter(|(path, _)| path.starts_with(&docs)) {
        let directory = path.parent().unwrap_or(&docs);
        let targets = page.links().into_iter().filter(|(_, target)| !is_external(target));
        let leaves = |target: &str| !normal(&directory.join(target)).starts_with(&docs);
        outside.extend(
            targets.filter(|(_, target)| leaves(target)).map(|(line, target)| format!("{}:{line}: {target}", path.display())),
        );
    }
    assert!(outside.is_empty(), "not in the book:\n{}", outside.join("\n"));
}

#[test]
fn every_page_is_in_the_table_of_contents() {
    let docs = root().join("docs");
    let pages = pages();
    let contents: Vec<PathBuf> = pages[&docs.join("SUMMARY.md")].links().into_iter().map(|(_, link)| docs.join(link)).collect();
    let missing: Vec<&PathBuf> = pages
        .keys()
        .filter(|path| path.starts_with(&docs) && !path.ends_with("SUMMARY.md") && !contents.contains(path))
        .collect();
    assert!(missing.is_empty(), "not in docs/SUMMARY.md: {missing:?}");
}

#[test]
fn links_and_anchors_are_found_as_readers_see_them() {
    let page = Page::parse(
        "# `file`: a raw *image*\n[a](b.md#c) `[x](y)` ![i](p.png \"t\")\n```sh\n[no](z)\n# none\n```\n# Again\n## Again\n",
    );
    assert_eq!(page.anchors, ["file-a-raw-image", "again", "again-1"]);
    assert_eq!(page.links(), [(2, "b.md#c".to_owned()), (2, "p.png".to_owned())]);
    assert_eq!(page.code()[1], (2, "[x](y)".to_owned()));
}
