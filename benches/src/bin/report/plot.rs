//! Plots of the results.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use cangw_benches::{Measured, OfKernel, Results};
use plotters::prelude::*;

/// What is on the horizontal axis.
struct Axis {
    /// The plot's name, and the group of its measurements.
    name: &'static str,
    /// Of the group, only these.
    wanted: fn(&Measured) -> bool,
    title: &'static str,
    label: &'static str,
    value: fn(&Measured) -> u32,
}

const AXES: [Axis; 2] = [
    Axis {
        name: "rules",
        wanted: |m| m.kind == "11-bit masks",
        title: "masks on standard identifiers",
        label: "rules",
        value: |m| m.rules,
    },
    Axis {
        name: "targets",
        wanted: |_| true,
        title: "one frame to many targets",
        label: "targets",
        value: |m| m.targets,
    },
];

const COLORS: [RGBColor; 4] = [
    RGBColor(0xB0, 0x30, 0x20),
    RGBColor(0x20, 0x60, 0xB0),
    RGBColor(0x20, 0x90, 0x40),
    RGBColor(0x80, 0x50, 0xA0),
];

/// Writes all plots into the folder.
pub fn all(results: &Results, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    for (line, of) in results {
        for axis in &AXES {
            let path = folder.join(format!("{}-{line}.svg", axis.name));
            draw(&path, line, of, axis)
                .with_context(|| format!("cannot draw {}", path.display()))?;
        }
    }
    Ok(())
}

fn draw(path: &Path, line: &str, of: &OfKernel, axis: &Axis) -> Result<()> {
    let wanted = |m: &&Measured| m.group == axis.name && (axis.wanted)(m);
    let points: Vec<(&str, f64, f64)> = of
        .counted
        .iter()
        .filter(wanted)
        .filter_map(|m| {
            let x = f64::from((axis.value)(m));
            Some((m.gateway.as_str(), x, of.added(m)?))
        })
        .collect();
    let range = |values: Vec<f64>| {
        let low = values.iter().copied().fold(f64::INFINITY, f64::min);
        let high = values.iter().copied().fold(0.0, f64::max);
        low * 0.8..high * 1.25
    };
    if points.is_empty() {
        // Only this group was left out.
        return Ok(());
    }
    let x = range(points.iter().map(|p| p.1).collect());
    let y = range(points.iter().map(|p| p.2).collect());
    let area = SVGBackend::new(path, (720, 420)).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(format!("Linux {line}: {}", axis.title), ("sans-serif", 20))
        .margin(12)
        .x_label_area_size(42)
        .y_label_area_size(72)
        .build_cartesian_2d(x.log_scale(), y.log_scale())?;
    chart
        .configure_mesh()
        .x_desc(axis.label)
        .y_desc("instructions added for a frame")
        .x_label_formatter(&|value| format!("{value:.0}"))
        .y_label_formatter(&|value| format!("{value:.0}"))
        .draw()?;
    let mut gateways: Vec<&str> = Vec::new();
    for (gateway, ..) in &points {
        if !gateways.contains(gateway) {
            gateways.push(gateway);
        }
    }
    for (gateway, color) in gateways.into_iter().zip(COLORS) {
        let of_gateway = points.iter().filter(|p| p.0 == gateway);
        let line: Vec<(f64, f64)> = of_gateway.map(|p| (p.1, p.2)).collect();
        chart
            .draw_series(LineSeries::new(line.clone(), color.stroke_width(2)))?
            .label(gateway)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], color.stroke_width(2)));
        chart.draw_series(
            line.into_iter()
                .map(|at| Circle::new(at, 3, color.filled())),
        )?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE)
        .border_style(BLACK)
        .draw()?;
    area.present()?;
    Ok(())
}
