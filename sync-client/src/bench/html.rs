//! The figures as one page that needs nothing else: no script, no network, inline SVG, light and dark.

use super::figures::Summary;
use super::report::{self, Bar};
use std::fmt::Write as _;

/// What every page of this program looks like.
pub(crate) const STYLE: &str = "\
:root{color-scheme:light dark;--ink:#1c2430;--soft:#5a6675;--paper:#fbfbf9;--line:#dcdfe3;--bar:#2f6fb0;--slow:#c2571a}
@media(prefers-color-scheme:dark){:root{--ink:#e6e9ee;--soft:#9aa5b3;--paper:#14181e;--line:#2c333d;--bar:#6aa8e6;--slow:#f0935a}}
body{margin:0 auto;max-width:44rem;padding:1rem;font:16px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper)}
h1{font-size:1.4rem;margin:.5rem 0}h2{font-size:1.1rem;margin:1.6rem 0 .3rem;border-top:1px solid var(--line);padding-top:.8rem}
h3{font-size:.95rem;color:var(--soft);font-weight:500;margin:.6rem 0 .2rem}
p{margin:.3rem 0}.soft,li{color:var(--soft);font-size:.9rem}ul{padding-left:1.1rem}
dl{display:grid;grid-template-columns:repeat(auto-fit,minmax(10rem,1fr));gap:.6rem;margin:.8rem 0}
dl div{border:1px solid var(--line);border-radius:.5rem;padding:.5rem .7rem}dt{color:var(--soft);font-size:.85rem}
dd{margin:0;font-size:1.15rem;font-weight:600}
svg{display:block;width:100%;max-width:26rem;height:auto}svg text{fill:var(--ink);font-size:13px}
.track{fill:var(--line);opacity:.5}.bar{fill:var(--bar)}.slow{fill:var(--slow)}";

/// The whole page.
pub(super) fn page(summary: &Summary) -> String {
    let measured = &summary.measured;
    let mut page = String::from("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n");
    page.push_str("<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n");
    let _ = writeln!(page, "<title>sync-client bench</title>\n<style>{STYLE}</style></head><body>");
    page.push_str("<h1>How fast will it be?</h1>\n");
    head(summary, &mut page);
    section("First pass, stage by stage", &report::first_pass(summary), &mut page);
    chart(&report::stage_bars(summary), true, &mut page);
    report::advice(summary).iter().for_each(|text| paragraph(text, &mut page));
    if let Some(link) = &measured.link {
        section("Link", &report::link_facts(link), &mut page);
        for (title, flows) in
            [("To the destination", &link.to_destination), ("To the source", &link.to_source)]
        {
            let _ = writeln!(page, "<h3>{title}</h3>");
            chart(&report::flow_bars(flows), false, &mut page);
        }
    }
    for (name, end) in [("Source", Some(&measured.source)), ("Destination", measured.destination.as_ref())] {
        let Some(end) = end else { continue };
        section(name, &report::end_title(end), &mut page);
        chart(&report::end_bars(end), false, &mut page);
        for (label, text) in report::end_facts(end) {
            paragraph(&format!("{label}: {text}"), &mut page);
        }
    }
    section("What this assumes", "", &mut page);
    page.push_str("<ul>\n");
    for text in summary.forecast.assumptions.iter().chain(&measured.notes) {
        let _ = writeln!(page, "<li>{}</li>", escaped(text));
    }
    page.push_str("</ul>\n</body></html>\n");
    page
}

fn head(summary: &Summary, page: &mut String) {
    let forecast = &summary.forecast;
    paragraph(&report::tree(&summary.measured), page);
    page.push_str("<dl>\n");
    for (name, text) in [
        ("First pass", report::duration(forecast.first_pass.elapsed_s)),
        ("Next pass", report::pass(&forecast.next_pass)),
        ("Cold pass: the downtime", report::pass(&forecast.cold_pass)),
    ] {
        let _ = writeln!(page, "<div><dt>{name}</dt><dd>{}</dd></div>", escaped(&text));
    }
    page.push_str("</dl>\n");
}

fn section(title: &str, text: &str, page: &mut String) {
    let _ = writeln!(page, "<h2>{}</h2>", escaped(title));
    if !text.is_empty() {
        paragraph(text, page);
    }
}

fn paragraph(text: &str, page: &mut String) {
    let _ = writeln!(page, "<p class=\"soft\">{}</p>", escaped(text));
}

const WIDTH: f64 = 340.0;
const ROW: f64 = 40.0;

/// Each bar below its label, so that a narrow screen has room for both.
fn chart(bars: &[Bar], marks_longest: bool, page: &mut String) {
    let longest = bars.iter().fold(0.0, |longest: f64, bar| longest.max(bar.value));
    let height = ROW * bars.len() as f64;
    let _ = writeln!(page, "<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\">");
    for (row, bar) in bars.iter().enumerate() {
        let top = ROW * row as f64;
        let share = if longest > 0.0 { (bar.value / longest).clamp(0.0, 1.0) } else { 0.0 };
        let class = if marks_longest && longest > 0.0 && bar.value >= longest { "slow" } else { "bar" };
        let (label, text) = (escaped(&bar.label), escaped(&bar.text));
        let _ = writeln!(
            page,
            "<text x=\"0\" y=\"{:.0}\">{label}</text><text x=\"{WIDTH}\" y=\"{:.0}\" text-anchor=\"end\">{text}</text>\
             <rect class=\"track\" x=\"0\" y=\"{:.0}\" width=\"{WIDTH}\" height=\"10\" rx=\"3\"/>\
             <rect class=\"{class}\" x=\"0\" y=\"{:.0}\" width=\"{:.1}\" height=\"10\" rx=\"3\"/>",
            top + 16.0,
            top + 16.0,
            top + 22.0,
            top + 22.0,
            (share * WIDTH).max(if bar.value > 0.0 { 2.0 } else { 0.0 }),
        );
    }
    page.push_str("</svg>\n");
}

/// Text that no browser takes for markup.
/// Text as HTML shows it.
pub(crate) fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            letter => safe.push(letter),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::super::figures::{EndFigures, Measured};
    use super::super::forecast::forecast;
    use super::*;

    #[test]
    fn names_are_text_on_the_page_and_nothing_is_fetched() {
        let source = EndFigures { place: "<script>&\"".to_owned(), cores: 2, ..EndFigures::default() };
        let measured = Measured { source, ..Measured::default() };
        let forecast = forecast(&measured, 1.0);
        let page = page(&Summary::new(measured, forecast, 1.0));
        assert!(page.contains("&lt;script&gt;&amp;&quot;") && !page.contains("<script"));
        assert!(!page.contains("http") && !page.contains("url(") && !page.contains("@import"));
    }
}
