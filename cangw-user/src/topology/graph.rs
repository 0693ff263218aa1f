//! A topology as a picture: for Graphviz, for Mermaid, or as SVG.

use std::fmt::Write as _;

use super::Topology;
use crate::rule::Rule;

/// What a picture is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For Graphviz's `dot`.
    Dot,
    /// For Markdown with Mermaid.
    Mermaid,
    /// A drawing.
    Svg,
}

/// Distances of the drawing, in pixels.
const COLUMN: usize = 120;
const ROW: usize = 90;
const LINE: usize = 16;
const MARGIN: usize = 20;
const BOX: (usize, usize) = (100, 40);
/// Width of a character of the labels of routes.
const CHARACTER: usize = 7;

/// Draws a topology.
#[must_use]
pub fn draw(topology: &Topology, format: Format) -> String {
    match format {
        Format::Dot => dot(topology),
        Format::Mermaid => mermaid(topology),
        Format::Svg => svg(topology),
    }
}

/// What a route does, without its ends.
fn label(route: &Rule) -> String {
    let mut text = route.to_string();
    for end in ["-s ", "-d "] {
        let bus = if end == "-s " {
            Some(route.source.as_str())
        } else {
            route.target()
        };
        if let Some(bus) = bus {
            text = text.replacen(&format!("{end}{bus}"), "", 1);
        }
    }
    let words: Vec<&str> = text.split_whitespace().collect();
    if words.is_empty() {
        "everything".into()
    } else {
        words.join(" ")
    }
}

fn dot(topology: &Topology) -> String {
    // No name has a quote in it; the labels of routes have none either, but what will be.
    let quoted = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"");
    let mut out = format!("digraph \"{}\" {{\n  rankdir=LR;\n", topology.name);
    for (name, bus) in &topology.buses {
        let device = bus.device.as_ref().map(|d| format!("\\n{}", d.interface));
        let device = device.unwrap_or_default();
        let _ = writeln!(
            out,
            "  \"bus {name}\" [shape=box, style=filled, label=\"{name}{device}\"];"
        );
    }
    for (name, ecu) in &topology.ecus {
        let _ = writeln!(out, "  \"{name}\" [shape=ellipse];");
        for (interface, bus) in &ecu.interfaces {
            let _ = writeln!(
                out,
                "  \"{name}\" -> \"bus {bus}\" [dir=both, label=\"{interface}\"];"
            );
        }
    }
    for route in &topology.routes {
        let target = route.target().unwrap_or(&route.source);
        let _ = writeln!(
            out,
            "  \"bus {}\" -> \"bus {target}\" [style=bold, label=\"{}\"];",
            route.source,
            quoted(&label(route))
        );
    }
    out + "}\n"
}

fn mermaid(topology: &Topology) -> String {
    let mut out = "flowchart LR\n".to_owned();
    for name in topology.buses.keys() {
        let _ = writeln!(out, "  bus_{name}[[{name}]]");
    }
    for (name, ecu) in &topology.ecus {
        let _ = writeln!(out, "  ecu_{name}([{name}])");
        for (interface, bus) in &ecu.interfaces {
            let _ = writeln!(out, "  ecu_{name} <-- {interface} --> bus_{bus}");
        }
    }
    for route in &topology.routes {
        let target = route.target().unwrap_or(&route.source);
        let label = label(route).replace('"', "#quot;");
        let _ = writeln!(
            out,
            "  bus_{} == \"{label}\" ==> bus_{target}",
            route.source
        );
    }
    out
}

/// ECUs stand side by side above the buses, which are lines; routes are arrows at the right.
fn svg(topology: &Topology) -> String {
    let escaped = |text: &str| {
        let text = text.replace('&', "&amp;").replace('<', "&lt;");
        text.replace('>', "&gt;")
    };
    let columns = topology.ecus.len().max(1);
    let bus_left = MARGIN + COLUMN;
    let bus_right = bus_left + columns * COLUMN;
    let first_row = MARGIN + BOX.1 + ROW / 2;
    let row =
        |bus: &str| first_row + ROW * topology.buses.keys().position(|b| b == bus).unwrap_or(0);
    let labels: Vec<String> = topology.routes.iter().map(label).collect();
    let longest = labels.iter().map(|l| l.chars().count()).max().unwrap_or(0);
    let routes_right = bus_right + LINE * (labels.len() + 1);
    // Before the text of a route stand its number and its ends.
    let width = routes_right.max(CHARACTER * (longest + 45)) + MARGIN;
    let below = first_row + ROW * topology.buses.len() - ROW / 3;
    let height = below + LINE * labels.len() + MARGIN;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <title>{}</title>\n\
         <defs><marker id=\"tip\" viewBox=\"0 0 8 8\" refX=\"8\" refY=\"4\" markerWidth=\"8\" markerHeight=\"8\" orient=\"auto\"><path d=\"M0 0L8 4L0 8z\"/></marker></defs>\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"white\"/>\n",
        topology.name
    );
    for (name, bus) in &topology.buses {
        let y = row(name);
        let _ = writeln!(
            out,
            "<line x1=\"{bus_left}\" y1=\"{y}\" x2=\"{routes_right}\" y2=\"{y}\" stroke=\"black\" stroke-width=\"3\"/>\
             <text x=\"{MARGIN}\" y=\"{}\">{name}</text>",
            y + 4
        );
        if let Some(device) = &bus.device {
            let _ = writeln!(
                out,
                "<text x=\"{MARGIN}\" y=\"{}\" fill=\"gray\">{}</text>",
                y + 4 + LINE,
                escaped(&device.interface)
            );
        }
    }
    for (column, (name, ecu)) in topology.ecus.iter().enumerate() {
        let left = bus_left + column * COLUMN + (COLUMN - BOX.0) / 2;
        let _ = writeln!(
            out,
            "<rect x=\"{left}\" y=\"{MARGIN}\" width=\"{}\" height=\"{}\" rx=\"6\" fill=\"#e8eef7\" stroke=\"black\"/>\
             <text x=\"{}\" y=\"{}\" text-anchor=\"middle\">{name}</text>",
            BOX.0,
            BOX.1,
            left + BOX.0 / 2,
            MARGIN + BOX.1 / 2 + 4
        );
        let step = BOX.0 / (ecu.interfaces.len() + 1);
        for (number, (interface, bus)) in ecu.interfaces.iter().enumerate() {
            let x = left + step * (number + 1);
            let (top, bottom) = (MARGIN + BOX.1, row(bus));
            let _ = writeln!(
                out,
                "<line x1=\"{x}\" y1=\"{top}\" x2=\"{x}\" y2=\"{bottom}\" stroke=\"black\"/><circle cx=\"{x}\" cy=\"{bottom}\" r=\"4\"/>\
                 <text x=\"{}\" y=\"{}\" fill=\"gray\">{}</text>",
                x + 3,
                top + LINE,
                escaped(interface)
            );
        }
    }
    for (number, (route, label)) in topology.routes.iter().zip(&labels).enumerate() {
        let x = bus_right + LINE * (number + 1);
        let from = row(&route.source);
        // What goes nowhere ends below its bus.
        let to = route.target().map_or(from + LINE, row);
        let text = below + LINE * number;
        let _ = writeln!(
            out,
            "<line x1=\"{x}\" y1=\"{from}\" x2=\"{x}\" y2=\"{to}\" stroke=\"black\" stroke-width=\"1.5\" marker-end=\"url(#tip)\"/>\
             <text x=\"{}\" y=\"{}\" fill=\"gray\" font-size=\"9\">{}</text>\
             <text x=\"{MARGIN}\" y=\"{text}\">{}: {} to {}: {}</text>",
            x + 3,
            usize::midpoint(from, to) + 3,
            number + 1,
            number + 1,
            route.source,
            route.target().unwrap_or("nobody"),
            escaped(label)
        );
    }
    out + "</svg>\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = include_str!("../../../examples/test-bench.toml");

    #[test]
    fn everything_is_in_the_picture() {
        let topology = Topology::parse("f", EXAMPLE).unwrap();
        for format in [Format::Dot, Format::Mermaid, Format::Svg] {
            let text = draw(&topology, format);
            let names = topology.buses.keys().chain(topology.ecus.keys());
            for name in names {
                assert!(text.contains(name.as_str()), "{format:?}: {name}");
            }
            for route in [
                "--id 1A0-1A3 --drop 1% --corrupt 1% --seed 1",
                "--drop --id 080-0FF",
            ] {
                assert!(text.contains(route), "{format:?}: {route}\n{text}");
            }
        }
        let dot = draw(&topology, Format::Dot);
        assert!(dot.contains("\"recorder\" -> \"bus adas\" [dir=both, label=\"can1\"];"));
        assert!(dot.contains("\"bus chassis\" -> \"bus adas\" [style=bold"));
        let svg = draw(&topology, Format::Svg);
        assert_eq!(
            svg.matches("<line").count(),
            2 + 9 + 3,
            "buses, interfaces, routes"
        );
    }
}
