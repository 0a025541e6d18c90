//! Latency against rate, as an SVG.

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::prelude::*;

use crate::report::Measurement;

/// Draws the measurements that have a rate and latencies: one line for each percentile.
pub fn latency_against_rate(to: &Path, title: &str, measured: &[&Measurement]) -> Result<()> {
    draw(to, title, measured).map_err(|error| anyhow!("{}: {error}", to.display()))
}

fn draw(to: &Path, title: &str, measured: &[&Measurement]) -> Result<(), Box<dyn std::error::Error>> {
    type Percentile = fn(&crate::latency::Summary) -> f64;
    let lines: [(&str, RGBColor, Percentile); 4] = [
        ("p50", RGBColor(0x1b, 0x6c, 0xa8), |latency| latency.p50),
        ("p99", RGBColor(0xd9, 0x7c, 0x0c), |latency| latency.p99),
        ("p99.9", RGBColor(0xa8, 0x2a, 0x2a), |latency| latency.p999),
        ("max", RGBColor(0x88, 0x88, 0x88), |latency| latency.max),
    ];
    let points = |of: Percentile| {
        measured.iter().filter_map(move |each| Some((each.records_per_second, of(each.latency.as_ref()?))))
    };
    let most = |values: &mut dyn Iterator<Item = f64>| values.fold(1.0_f64, f64::max);
    let right = most(&mut points(lines[0].2).map(|(rate, _)| rate)) * 1.05;
    let top = most(&mut points(lines[3].2).map(|(_, latency)| latency)) * 1.5;

    let root = SVGBackend::new(to, (900, 480)).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption(title, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(44)
        .y_label_area_size(64)
        .build_cartesian_2d(0.0..right, (0.1..top).log_scale())?;
    chart
        .configure_mesh()
        .x_desc("records per second")
        .y_desc("ms from the moment due to the acknowledgement")
        .x_label_formatter(&|rate| format!("{rate:.0}"))
        .y_label_formatter(&|latency| format!("{latency}"))
        .light_line_style(RGBColor(0xee, 0xee, 0xee))
        .draw()?;
    for (name, colour, of) in lines {
        let style = ShapeStyle { color: colour.into(), filled: true, stroke_width: 2 };
        chart
            .draw_series(LineSeries::new(points(of), style).point_size(3))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], style));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.8))
        .border_style(RGBColor(0xcc, 0xcc, 0xcc))
        .draw()?;
    root.present()?;
    Ok(())
}
