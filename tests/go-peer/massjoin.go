package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"sort"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// How often it is looked whether all agree, as the example mass_join of this workspace does.
const lookEvery = 5 * time.Millisecond

// massJoinSummary has the fields that the example mass_join prints; times are in seconds.
type massJoinSummary struct {
	Nodes      int       `json:"nodes"`
	Runs       []float64 `json:"runs_s"`
	Median     *float64  `json:"median_s"`
	Max        *float64  `json:"max_s"`
	FailedRuns int       `json:"failed_runs"`
	// Joins that the library reported as failed; a run may converge all the same.
	FailedJoins int `json:"failed_joins"`
}

// massJoin measures what the example mass_join does, with Go's library: all nodes of a cluster, in one
// process and with LAN settings, join one seed at the same moment.
func massJoin(args []string, out io.Writer, progress io.Writer) error {
	flags := flag.NewFlagSet("mass-join", flag.ContinueOnError)
	nodes := flags.Int("nodes", 100, "how many nodes, the seed included")
	runs := flags.Int("runs", 20, "how many runs, each with new nodes")
	bound := flags.Duration("bound", 120*time.Second, "after which a run counts as failed")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *nodes < 2 || *runs < 1 {
		return fmt.Errorf("at least 2 nodes and 1 run are needed")
	}
	summary := massJoinSummary{Nodes: *nodes, Runs: []float64{}}
	for run := 1; run <= *runs; run++ {
		took, failed, err := massJoinOnce(*nodes, *bound)
		summary.FailedJoins += failed
		if err != nil {
			summary.FailedRuns++
			fmt.Fprintf(progress, "run %3d: FAILED, %v\n", run, err)
			continue
		}
		fmt.Fprintf(progress, "run %3d: %.3f s\n", run, took.Seconds())
		summary.Runs = append(summary.Runs, took.Seconds())
	}
	if sorted := append([]float64{}, summary.Runs...); len(sorted) > 0 {
		sort.Float64s(sorted)
		median := (sorted[(len(sorted)-1)/2] + sorted[len(sorted)/2]) / 2
		summary.Median, summary.Max = &median, &sorted[len(sorted)-1]
	}
	return json.NewEncoder(out).Encode(summary)
}

// massJoinOnce gives the time from the first join until every node sees every node, and how many joins
// failed.
func massJoinOnce(count int, bound time.Duration) (time.Duration, int, error) {
	nodes := make([]*memberlist.Memberlist, 0, count)
	defer func() {
		for _, node := range nodes {
			_ = node.Shutdown()
		}
	}()
	for i := range count {
		config := memberlist.DefaultLANConfig()
		config.Name = fmt.Sprintf("node-%d", i)
		config.BindAddr, config.BindPort, config.AdvertisePort = "127.0.0.1", 0, 0
		config.Logger = log.New(io.Discard, "", 0)
		node, err := memberlist.Create(config)
		if err != nil {
			return 0, 0, err
		}
		nodes = append(nodes, node)
	}
	own := nodes[0].LocalNode()
	seed := net.JoinHostPort(own.Addr.String(), strconv.Itoa(int(own.Port)))
	began := time.Now()
	failed, mutex, joins := 0, sync.Mutex{}, sync.WaitGroup{}
	for _, node := range nodes[1:] {
		joins.Add(1)
		go func() {
			defer joins.Done()
			if _, err := node.Join([]string{seed}); err != nil {
				mutex.Lock()
				failed++
				mutex.Unlock()
			}
		}()
	}
	joins.Wait()
	for time.Since(began) < bound {
		if agree(nodes) {
			return time.Since(began), failed, nil
		}
		time.Sleep(lookEvery)
	}
	return 0, failed, fmt.Errorf("no agreement within %v, %d joins failed", bound, failed)
}

func agree(nodes []*memberlist.Memberlist) bool {
	for _, node := range nodes {
		if node.NumMembers() != len(nodes) {
			return false
		}
	}
	return true
}
