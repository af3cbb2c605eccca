// Reads rules as Prometheus does, and expressions of dashboards, one a line of standard input: promql RULES.yaml < EXPRESSIONS.
// Says what Prometheus would not take. Prometheus' own promtool does more than that, and takes a quarter of an hour to build.
package main

import (
	"bufio"
	"fmt"
	"log/slog"
	"os"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql/parser"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: promql RULES.yaml < EXPRESSIONS")
		os.Exit(64)
	}
	promql := parser.NewParser(parser.Options{})
	groups, wrong := rulefmt.ParseFile(os.Args[1], false, model.UTF8Validation, promql, slog.Default())
	rules := 0
	if groups != nil {
		for _, group := range groups.Groups {
			rules += len(group.Rules)
		}
	}
	expressions := 0
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); expressions++ {
		if _, err := promql.ParseExpr(lines.Text()); err != nil {
			wrong = append(wrong, fmt.Errorf("%s: %w", lines.Text(), err))
		}
	}
	for _, err := range wrong {
		fmt.Println(err)
	}
	if len(wrong) > 0 {
		os.Exit(1)
	}
	fmt.Printf("%d rules, %d expressions\n", rules, expressions)
}
