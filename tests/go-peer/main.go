// Go-peer is one node of HashiCorp's memberlist, driven by lines on standard input as the agent of
// this workspace is (examples/agent.rs): it has the same commands, events and fields wherever the
// same thing exists. Every event and answer is one JSON object a line on standard output; the
// library's log goes to standard error.
//
//	go-peer --name a --bind 127.0.0.1:0 --join 127.0.0.1:7946
//	go-peer --decode
//	go-peer --fleet
//
// It ends by quit after a farewell, by shutdown or the end of the input without one.
//
// With --decode it is no node: it tells, line by line, what the library makes of given bytes. With --fleet it
// is many, driven by the side-by-side benchmark.
package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/hashicorp/memberlist"
)

// Exit statuses, as the agent has them.
const (
	statusFailed   = 1
	statusBadFlags = 2
)

func main() {
	if len(os.Args) == 2 && os.Args[1] == "--decode" {
		if err := decodeLines(os.Stdin, os.Stdout); err != nil {
			fail(statusFailed, err)
		}
		return
	}
	if len(os.Args) == 2 && os.Args[1] == "--fleet" {
		if err := runFleet(os.Stdin, os.Stdout); err != nil {
			fail(statusFailed, err)
		}
		return
	}
	settings, err := readFlags(os.Args[1:])
	if err != nil {
		fail(statusBadFlags, err)
	}
	if err := run(settings); err != nil {
		fail(statusFailed, err)
	}
}

func fail(status int, err error) {
	fmt.Fprintf(os.Stderr, "error: %v\n", err)
	os.Exit(status)
}

func run(settings *settings) error {
	output := &output{}
	delegates := newDelegates(settings, output)
	node, err := memberlist.Create(delegates.configure(settings.config))
	if err != nil {
		return err
	}
	delegates.node.Store(node)
	written := output.start(ready(settings, node))

	peer := &peer{node: node, config: settings.config, delegates: delegates, output: output}
	if len(settings.join) > 0 {
		peer.join("--join", settings.join)
	}
	peer.serve(os.Stdin)
	if err := node.Shutdown(); err != nil {
		output.fail("", err)
	}
	output.tell("stopped", fields{"name": settings.config.Name})
	output.close()
	return <-written
}

func ready(settings *settings, node *memberlist.Memberlist) fields {
	config := settings.config
	// A port of 0 was replaced by the one that was found.
	about := fields{
		"name":      config.Name,
		"transport": "net",
		"addr":      joinAddr(config.BindAddr, config.BindPort),
		"advertise": node.LocalNode().Address(),
	}
	about.text("meta", []byte(settings.meta))
	if config.Label != "" {
		about["label"] = config.Label
	}
	return about
}

// serve obeys until it is told to stop, or the input ends: a peer must not outlive its driver.
func (p *peer) serve(input io.Reader) {
	lines := bufio.NewReader(input)
	for {
		line, err := lines.ReadString('\n')
		if line := strings.Trim(line, "\r\n"); strings.TrimSpace(line) != "" {
			if stop := p.obey(line); stop {
				return
			}
		}
		if err != nil {
			return
		}
	}
}
