//! The page of `report` in a real browser: on a telephone and on a desk, by day and by night.

use std::process::Command;

use serde_json::Value;

use crate::skips::skip;
use crate::support::Desk;

/// Names of the browser whose screen is looked at.
const BROWSERS: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];

/// How wide the windows are: a telephone, a desk.
const WIDTHS: [u64; 2] = [400, 1400];

/// Shows the page in windows of these widths, and says of each: how many of its parts reach out of the window, how many bars
/// it has, how dark it is, and what of it stands beside what.
const LOOK: &str = r"<!doctype html><meta charset='utf-8'><body><pre id='said'></pre><script>
const said = {}
const widths = [400, 1400]
for (const width of widths) {
  const frame = document.createElement('iframe')
  frame.style = `width:${width}px;height:900px;border:0`
  frame.onload = () => {
    const page = frame.contentDocument, style = e => frame.contentWindow.getComputedStyle(e)
    const parts = [...page.querySelectorAll('body *')]
    const versions = [...page.querySelectorAll('.sides > div')].map(e => e.getBoundingClientRect())
    said[width] = {
      outside: parts.filter(e => e.getBoundingClientRect().right > width + 1).length,
      bars: page.querySelectorAll('rect').length,
      ground: style(page.body).backgroundColor.match(/\d+/g).slice(0, 3).map(Number),
      text: style(page.body).color.match(/\d+/g).slice(0, 3).map(Number),
      beside: versions.some((a, n) => versions.slice(n + 1).some(b => a.top == b.top && b.left >= a.right)),
      loaded: frame.contentWindow.performance.getEntriesByType('resource').length,
    }
    if (Object.keys(said).length == widths.length) document.getElementById('said').textContent = JSON.stringify(said)
  }
  frame.src = 'fleet.html'
  document.body.append(frame)
}
</script>";

/// Runs the browser without a screen.
fn browse(desk: &Desk, browser: &str, words: &[&str], page: &str) -> String {
    let profile = desk.path("profile");
    let mut command = Command::new(browser);
    command.args(["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run"]);
    command.arg(format!("--user-data-dir={}", profile.display())).args(words);
    let ran = command.arg(format!("file://{}", desk.path(page).display())).output().unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    String::from_utf8_lossy(&ran.stdout).into_owned()
}

/// How bright a colour is, of 255.
fn light(colour: &Value) -> u64 {
    colour.as_array().unwrap().iter().map(|part| part.as_u64().unwrap()).sum::<u64>() / 3
}

#[test]
fn the_page_fits_a_telephone_and_a_desk_by_day_and_by_night() {
    let there = |browser: &&&str| {
        Command::new(browser).arg("--version").output().is_ok_and(|ran| ran.status.success())
    };
    let Some(browser) = BROWSERS.iter().find(there) else {
        return skip("the page of `report` in a browser", "chromium is not installed");
    };
    let (desk, _) = Desk::conflict();
    let long = "asked the mother on the phone, who will call again ".repeat(9) + &"x".repeat(300);
    desk.sql("north.db", &format!("UPDATE settings SET note = '{long}'"));
    desk.sql("east.db", "INSERT INTO readings (value) VALUES (1), (2)");
    desk.carry("north", "base");
    desk.carry("east", "base");
    desk.run("report base.db fleet.html").ok();
    std::fs::write(desk.path("look.html"), LOOK).unwrap();
    for (night, scheme) in [(false, 1), (true, 0)] {
        let scheme = format!("--blink-settings=preferredColorScheme={scheme}");
        let words = ["--allow-file-access-from-files", "--virtual-time-budget=60000", &scheme, "--dump-dom"];
        let page = browse(&desk, browser, &words, "look.html");
        let said = page.split_once("<pre id=\"said\">").unwrap().1.split_once("</pre>").unwrap().0;
        let said: Value = serde_json::from_str(said).unwrap_or_else(|e| panic!("{e}: {page}"));
        for width in WIDTHS {
            let seen = &said[width.to_string()];
            assert_eq!((&seen["outside"], &seen["loaded"]), (&0.into(), &0.into()), "{width}: {said}");
            assert!(seen["bars"].as_u64().unwrap() > 1, "{width}: {said}");
            let (ground, text) = (light(&seen["ground"]), light(&seen["text"]));
            assert!(
                if night { ground < 50 && text > 180 } else { ground > 220 && text < 80 },
                "{width}: {said}"
            );
            assert_eq!(seen["beside"], width > 1000, "{width}: {said}");
        }
        // Pictures for people, where they are asked for, and the page on paper.
        let Some(folder) = std::env::var_os("PACKMULE_PICTURES") else { continue };
        let paper = std::path::Path::new(&folder).join("report.pdf");
        browse(&desk, browser, &[&scheme, &format!("--print-to-pdf={}", paper.display())], "fleet.html");
        for width in WIDTHS {
            let name = format!("report-{width}-{}.png", if night { "night" } else { "day" });
            let picture = format!("--screenshot={}", std::path::Path::new(&folder).join(name).display());
            browse(
                &desk,
                browser,
                &[&scheme, &format!("--window-size={width},2600"), &picture],
                "fleet.html",
            );
        }
    }
}
