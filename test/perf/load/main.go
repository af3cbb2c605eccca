// The load of test/perf: reads a description as one line of JSON on standard input, connects, proves one operation a lane, says
// "ready", and begins at the next line. Then one line of JSON with what it measured. A Node client would take the servers' cores.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

type load struct {
	Address     string            `json:"address"`
	TLS         bool              `json:"tls"`
	Headers     map[string]string `json:"headers"`
	Connections int               `json:"connections"`
	Seconds     float64           `json:"seconds"`
	// Ends it before its time; 0: the time does.
	AtMost    int64     `json:"atMost"`
	Operation operation `json:"operation"`
}

type result struct {
	Operations int     `json:"operations"`
	Seconds    float64 `json:"seconds"`
	P50Ms      float64 `json:"p50Ms"`
	P99Ms      float64 `json:"p99Ms"`
	CPUSeconds float64 `json:"cpuSeconds"`
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	orders := bufio.NewReaderSize(os.Stdin, 1<<20)
	line, err := orders.ReadBytes('\n')
	if err != nil {
		return err
	}
	var l load
	if err := json.Unmarshal(line, &l); err != nil {
		return err
	}
	var turn atomic.Int64
	lanes := make([]*lane, l.Connections)
	for n := range lanes {
		c, err := open(l.Address, l.TLS, l.Headers)
		if err != nil {
			return err
		}
		if lanes[n], err = newLane(n, &l.Operation, &turn, c); err != nil {
			return err
		}
	}
	if err := proveAll(lanes); err != nil {
		return err
	}
	fmt.Println("ready")
	if _, err := orders.ReadBytes('\n'); err != nil {
		return err
	}
	measured, err := measure(&l, lanes)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(measured)
}

func proveAll(lanes []*lane) error {
	failures := make(chan error, len(lanes))
	for _, each := range lanes {
		go func() { failures <- each.prove() }()
	}
	var first error
	for range lanes {
		if err := <-failures; err != nil && first == nil {
			first = err
		}
	}
	return first
}

func measure(l *load, lanes []*lane) (result, error) {
	latencies := make([][]time.Duration, len(lanes))
	failures := make([]error, len(lanes))
	var done atomic.Int64
	var group sync.WaitGroup
	cpuBefore := cpuSeconds()
	started := time.Now()
	until := started.Add(time.Duration(l.Seconds * float64(time.Second)))
	for n, each := range lanes {
		group.Add(1)
		go func() {
			defer group.Done()
			for {
				if l.AtMost > 0 && done.Add(1) > l.AtMost {
					return
				}
				before := time.Now()
				if err := each.once(); errors.Is(err, errExhausted) {
					return
				} else if err != nil {
					failures[n] = err
					return
				}
				now := time.Now()
				latencies[n] = append(latencies[n], now.Sub(before))
				if now.After(until) {
					return
				}
			}
		}()
	}
	group.Wait()
	seconds := time.Since(started).Seconds()
	used := cpuSeconds() - cpuBefore
	if err := errors.Join(failures...); err != nil {
		return result{}, err
	}
	all := slices.Concat(latencies...)
	if len(all) == 0 {
		return result{}, errors.New("nothing was done")
	}
	slices.Sort(all)
	at := func(share float64) float64 {
		return float64(all[min(len(all)-1, int(float64(len(all))*share))]) / float64(time.Millisecond)
	}
	return result{len(all), seconds, at(0.5), at(0.99), used}, nil
}

func cpuSeconds() float64 {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		return 0
	}
	return float64(usage.Utime.Nano()+usage.Stime.Nano()) / 1e9
}
