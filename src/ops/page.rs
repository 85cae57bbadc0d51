//! The status as a web page: one table, no script, nothing loaded from elsewhere.

use std::fmt::Write;

use super::health::Readiness;
use super::status::{MemberStatus, Status};
use crate::loss::Loss;
use crate::text::{bytes, or_dash};

/// Seconds after which a browser asks again.
const REFRESH_SECONDS: u32 = 5;

const STYLE: &str = "body{font:16px system-ui,sans-serif;margin:2rem;color:#1b1f24;background:#fff}\
    table{border-collapse:collapse}th,td{text-align:left;padding:.4rem 1rem .4rem 0;\
    border-bottom:1px solid #d0d7de}td.n{text-align:right;font-variant-numeric:tabular-nums}\
    .bad{color:#b42318;font-weight:600}dt{float:left;clear:left;width:7rem;color:#57606a}\
    dd{margin:0 0 .3rem 7rem}@media(prefers-color-scheme:dark){body{color:#e6edf3;\
    background:#0d1117}th,td{border-color:#30363d}dt{color:#8b949e}.bad{color:#ff7b72}}";

/// Renders the page. `status` is missing until the replica takes part in its cluster.
pub(super) fn render(readiness: &Readiness, status: Option<&Status>) -> String {
    let mut page = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\">\
         <meta http-equiv=\"refresh\" content=\"{REFRESH_SECONDS}\">\
         <title>Tercet</title><style>{STYLE}</style></head><body><h1>Tercet</h1>"
    );
    let class = if readiness.ready { "" } else { " class=\"bad\"" };
    // Writing to a string cannot fail.
    let _ = write!(page, "<p{class}>{}</p>", escape(&readiness.reason));
    if let Some(status) = status {
        facts(&mut page, status);
        table(&mut page, &status.members);
    }
    page.push_str("<p><a href=\"/status\">JSON</a> <a href=\"/metrics\">metrics</a></p>");
    page.push_str("</body></html>");
    page
}

fn facts(page: &mut String, status: &Status) {
    page.push_str("<dl>");
    for (name, value) in [
        ("replica", status.name.clone()),
        ("version", status.version.clone()),
        ("cluster", status.cluster_id.clone()),
        ("leader", status.leader.clone().unwrap_or_else(|| "none".to_owned())),
        ("term", status.term.to_string()),
        ("applied", status.applied.to_string()),
    ] {
        let _ = write!(page, "<dt>{name}</dt><dd>{}</dd>", escape(&value));
    }
    if status.feature_level != 0 {
        let _ = write!(page, "<dt>feature level</dt><dd>{}</dd>", status.feature_level);
    }
    page.push_str("</dl>");
    if let Some(why) = &status.refused {
        let _ = write!(page, "<p class=\"bad\">refused by the cluster: {}</p>", escape(why));
    }
    lost(page, &status.lost);
}

/// Blobs that are gone for good, and what cannot be pulled for that.
fn lost(page: &mut String, lost: &[Loss]) {
    if lost.is_empty() {
        return;
    }
    let _ =
        write!(page, "<p class=\"bad\">blobs that no replica has any more: {}</p><ul>", lost.len());
    for loss in lost {
        let images = loss.images.join(", ");
        let _ = write!(page, "<li>{} ({})</li>", escape(&loss.digest.to_string()), escape(&images));
    }
    page.push_str("</ul>");
}

fn table(page: &mut String, members: &[MemberStatus]) {
    page.push_str("<table><tr>");
    for head in
        ["name", "role", "zone", "version", "reachable", "applied", "lag", "blobs missing", "disk"]
    {
        let _ = write!(page, "<th>{head}</th>");
    }
    page.push_str("</tr>");
    for member in members {
        let reachable = if member.reachable { "yes" } else { "<span class=\"bad\">no</span>" };
        let disk = match (member.disk_used, member.disk_total) {
            (Some(used), Some(total)) => format!("{} of {}", bytes(used), bytes(total)),
            _ => "-".to_owned(),
        };
        let _ = write!(
            page,
            "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{reachable}</td><td class=\"n\">{}</td>\
             <td class=\"n\">{}</td><td class=\"n\">{}</td><td>{disk}</td></tr>",
            escape(&member.name),
            escape(&member.shown_role()),
            escape(member.zone.as_deref().unwrap_or("-")),
            escape(member.version.as_deref().unwrap_or("-")),
            or_dash(member.applied),
            or_dash(member.lag),
            or_dash(member.missing_blobs),
        );
    }
    page.push_str("</table>");
}

/// Names come from other replicas and from configuration: text, never markup.
fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            _ => safe.push(character),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn what_others_say_is_escaped() {
        let readiness = Readiness { ready: false, reason: "<script>alert(1)</script>".into() };
        let page = render(&readiness, None);
        assert!(!page.contains("<script"), "{page}");
        assert!(page.contains("&lt;script&gt;"), "{page}");
    }

    #[test]
    fn every_member_has_a_row() {
        let member = MemberStatus {
            name: "tercet-2".into(),
            node_id: 2,
            role: "follower".into(),
            ..MemberStatus::default()
        };
        let status = Status {
            cluster_id: "c".into(),
            name: "tercet-0".into(),
            node_id: 1,
            version: "0".into(),
            leader: None,
            term: 3,
            applied: 4,
            members: vec![member],
            ..Status::default()
        };
        let readiness = Readiness { ready: true, reason: "ready".into() };
        let page = render(&readiness, Some(&status));
        assert!(page.contains("<td>tercet-2</td>"), "{page}");
        assert!(page.contains("<dd>none</dd>"), "{page}");
    }
}
