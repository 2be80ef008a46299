package main

import (
	"fmt"
	"html"
	"os"
	"slices"
	"strings"
)

// A panel is a chart of bars in groups: one group for each label, one bar in it
// for each series.
type panel struct {
	title  string
	labels []string
	series []series
}

type series struct {
	name   string
	values []float64
}

const (
	panelWidth, panelHeight = 460, 230
	plotLeft, plotTop       = 12, 40
	plotWidth, plotHeight   = panelWidth - 2*plotLeft, 140
)

var colours = map[string]string{"redrive": "#0b6e99", "asynq": "#c98a3d"}

// writeSVG draws the curves, if there are any, else the table.
func writeSVG(file string, lines []line, points []point) error {
	panels := tablePanels(lines)
	if len(points) > 0 {
		panels = curvePanels(points)
	}
	rows := (len(panels) + 1) / 2
	var s strings.Builder
	w, h := 2*panelWidth, rows*panelHeight+36
	fmt.Fprintf(&s, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="system-ui, sans-serif" font-size="11">`+"\n", w, h)
	fmt.Fprintf(&s, `<rect width="%d" height="%d" fill="#ffffff"/>`+"\n", w, h)
	for i, name := range []string{"redrive", "asynq"} {
		fmt.Fprintf(&s, `<rect x="%d" y="14" width="12" height="12" fill="%s"/><text x="%d" y="24" fill="#222">%s</text>`+"\n",
			plotLeft+i*90, colours[name], plotLeft+i*90+17, name)
	}
	for i, p := range panels {
		p.draw(&s, i%2*panelWidth, i/2*panelHeight+36)
	}
	s.WriteString("</svg>\n")
	return os.WriteFile(file, []byte(s.String()), 0o644)
}

// draw places the panel with its top left corner at x, y.
func (p *panel) draw(s *strings.Builder, x, y int) {
	top := 0.0
	for _, r := range p.series {
		top = max(top, slices.Max(r.values))
	}
	base := y + plotTop + plotHeight
	fmt.Fprintf(s, `<text x="%d" y="%d" font-size="13" font-weight="600" fill="#222">%s</text>`+"\n", x+plotLeft, y+16, html.EscapeString(p.title))
	fmt.Fprintf(s, `<line x1="%d" y1="%d" x2="%d" y2="%d" stroke="#999"/>`+"\n", x+plotLeft, base, x+plotLeft+plotWidth, base)
	group := float64(plotWidth) / float64(len(p.labels))
	bar := min(52, group*0.8/float64(len(p.series)))
	for i, label := range p.labels {
		middle := float64(x+plotLeft) + group*(float64(i)+0.5)
		fmt.Fprintf(s, `<text x="%.1f" y="%d" text-anchor="middle" fill="#444">%s</text>`+"\n", middle, base+15, html.EscapeString(label))
		for j, r := range p.series {
			left := middle + bar*(float64(j)-float64(len(p.series))/2)
			height := 0.0
			if top > 0 {
				height = r.values[i] / top * (plotHeight - 14)
			}
			fmt.Fprintf(s, `<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" fill="%s"/>`, left+1, float64(base)-height, bar-2, height, colours[r.name])
			fmt.Fprintf(s, `<text x="%.1f" y="%.1f" text-anchor="middle" font-size="9" fill="#222">%s</text>`+"\n",
				left+bar/2, float64(base)-height-3, short(r.values[i]))
		}
	}
}

// short writes a figure in the width of a bar.
func short(v float64) string {
	switch {
	case v >= 10_000:
		return fmt.Sprintf("%.0fk", v/1000)
	case v >= 1000:
		return fmt.Sprintf("%.1fk", v/1000)
	}
	return quantity(v)
}

// curvePanels draws each curve twice: jobs a second, and Redis CPU per job.
func curvePanels(points []point) []panel {
	var panels []panel
	for len(points) > 0 {
		n := 0
		for n < len(points) && points[n].curve == points[0].curve {
			n++
		}
		for _, m := range []struct{ metric, title string }{{"rate", "jobs/s"}, {"redis_cpu", "Redis CPU, µs per job"}} {
			p := panel{title: m.title + " by " + points[0].curve, series: []series{{name: "redrive"}, {name: "asynq"}}}
			for i := 0; i < n; i += 2 {
				p.labels = append(p.labels, points[i].x)
				for j := range p.series {
					p.series[j].values = append(p.series[j].values, points[i+j].median(m.metric))
				}
			}
			panels = append(panels, p)
		}
		points = points[n:]
	}
	return panels
}

// tablePanels draws what the table has for both sides: the rates, and then each
// cost that has a bound.
func tablePanels(lines []line) []panel {
	rates := panel{title: "jobs/s", series: []series{{name: "redrive"}, {name: "asynq"}}}
	panels := []panel{rates}
	for i := range lines {
		l := &lines[i]
		if len(l.redrive) == 0 || len(l.asynq) == 0 || l.must == nil {
			continue
		}
		p := &panels[0]
		label := l.probe
		if l.metric != "rate" {
			panels = append(panels, panel{title: l.title + ", " + l.unit, series: []series{{name: "redrive"}, {name: "asynq"}}})
			p, label = &panels[len(panels)-1], ""
		}
		p.labels = append(p.labels, label)
		p.series[0].values = append(p.series[0].values, median(l.redrive))
		p.series[1].values = append(p.series[1].values, median(l.asynq))
	}
	return slices.DeleteFunc(panels, func(p panel) bool { return len(p.labels) == 0 })
}
