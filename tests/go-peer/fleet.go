package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"net"
	"os"
	"runtime/debug"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// fleet is many nodes in one process, driven by the lines of the side-by-side benchmark: what its commands
// and answers mean is told by bench/fleet/src/protocol.rs.
type fleet struct {
	slots      []slot
	encrypted  bool
	news       news
	broadcasts uint64
}

// slot is a place for a node: it keeps its name and address when it ends and starts again.
type slot struct {
	node  *memberlist.Memberlist
	relay *relay
	port  int
}

type fleetCommand struct {
	Command   string
	Nodes     json.RawMessage
	Encrypted bool
	InFlight  int `json:"in_flight"`
	LimitMs   int `json:"limit_ms"`
	Bytes     int
}

type fleetAnswer struct {
	Error       string     `json:"error,omitempty"`
	TookMs      *float64   `json:"took_ms"`
	Failed      int        `json:"failed"`
	Missing     int        `json:"missing"`
	FirstMs     []*float64 `json:"first_ms"`
	LastMs      []*float64 `json:"last_ms"`
	FalseDeaths int        `json:"false_deaths"`
}

// How often it is looked whether something is done, as the other fleets do.
const fleetLookEvery = 2 * time.Millisecond

const leaveLimit = 30 * time.Second

// fleetKey is the first half of the benchmark's.
var fleetKey = []byte("a key that everybody may know, 1")[:16]

// runFleet obeys the input until it ends.
func runFleet(in io.Reader, out io.Writer) error {
	writer := json.NewEncoder(out)
	hello := map[string]string{"implementation": "go", "version": libraryVersion()}
	if err := writer.Encode(hello); err != nil {
		return err
	}
	fleet := &fleet{news: news{deaths: map[string]map[int]time.Time{}, gone: map[string]bool{}}}
	for line := range commandLines(in) {
		var command fleetCommand
		answer, err := fleetAnswer{}, json.Unmarshal(line, &command)
		if err == nil {
			answer, err = fleet.obey(command)
		}
		if err != nil {
			answer.Error = err.Error()
		}
		answer.FalseDeaths = fleet.news.falseDeathCount()
		// An empty list is no null.
		answer.FirstMs = append([]*float64{}, answer.FirstMs...)
		answer.LastMs = append([]*float64{}, answer.LastMs...)
		if err := writer.Encode(answer); err != nil {
			return err
		}
	}
	return nil
}

// commandLines are the lines of the input. The process ends with them, in the middle of a command too:
// whoever drives it is gone then.
func commandLines(in io.Reader) <-chan []byte {
	lines := make(chan []byte)
	go func() {
		scanner := bufio.NewScanner(in)
		for scanner.Scan() {
			lines <- append([]byte{}, scanner.Bytes()...)
		}
		os.Exit(0)
	}()
	return lines
}

func libraryVersion() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, module := range info.Deps {
			if module.Path == "github.com/hashicorp/memberlist" {
				return module.Version
			}
		}
	}
	return "unknown"
}

func (f *fleet) obey(command fleetCommand) (fleetAnswer, error) {
	deadline := time.Now().Add(time.Duration(command.LimitMs) * time.Millisecond)
	var count int
	var numbers []int
	if command.Command == "create" {
		if err := json.Unmarshal(command.Nodes, &count); err != nil {
			return fleetAnswer{}, err
		}
	} else if command.Nodes != nil {
		if err := json.Unmarshal(command.Nodes, &numbers); err != nil {
			return fleetAnswer{}, err
		}
	}
	if command.Command != "create" && len(f.slots) == 0 {
		return fleetAnswer{}, fmt.Errorf("%s: there are no nodes", command.Command)
	}
	switch command.Command {
	case "create":
		if count < 2 || len(f.slots) > 0 {
			return fleetAnswer{}, errors.New("create: once, and at least two nodes")
		}
		return f.create(count, command.Encrypted)
	case "join":
		for number := 1; number < len(f.slots); number++ {
			numbers = append(numbers, number)
		}
		return f.join(numbers, command.InFlight, time.Now(), deadline)
	case "broadcast":
		return f.broadcast(command.Bytes, deadline)
	case "kill":
		return f.kill(numbers, deadline)
	case "leave":
		return f.leave(numbers, deadline)
	case "restart":
		return f.restart(command.InFlight, time.Duration(command.LimitMs)*time.Millisecond)
	default:
		return fleetAnswer{}, fmt.Errorf("unknown command %q", command.Command)
	}
}

func fleetName(number int) string { return fmt.Sprintf("node-%d", number) }

func (f *fleet) create(count int, encrypted bool) (fleetAnswer, error) {
	began := time.Now()
	f.encrypted = encrypted
	f.slots = make([]slot, count)
	for number := range f.slots {
		if err := f.start(number); err != nil {
			return fleetAnswer{}, err
		}
	}
	return fleetAnswer{TookMs: since(began)}, nil
}

// start starts a node where it was before, or anywhere.
func (f *fleet) start(number int) error {
	slot := &f.slots[number]
	config := memberlist.DefaultLANConfig()
	config.Name = fleetName(number)
	config.BindAddr, config.BindPort, config.AdvertisePort = "127.0.0.1", slot.port, slot.port
	config.Logger = log.New(io.Discard, "", 0)
	if f.encrypted {
		config.SecretKey = fleetKey
	}
	slot.relay = &relay{number: number, news: &f.news, seen: map[string]bool{}}
	config.Events, config.Delegate = slot.relay, slot.relay
	slot.relay.queue.RetransmitMult = config.RetransmitMult
	slot.relay.queue.NumNodes = slot.relay.memberCount
	node, err := memberlist.Create(config)
	if err != nil {
		return err
	}
	slot.relay.lock.Lock()
	slot.relay.node = node
	slot.relay.lock.Unlock()
	slot.node, slot.port = node, int(node.LocalNode().Port)
	return nil
}

func (f *fleet) join(numbers []int, inFlight int, began, deadline time.Time) (fleetAnswer, error) {
	seed := net.JoinHostPort("127.0.0.1", strconv.Itoa(f.slots[0].port))
	done := make(chan int)
	go func() {
		done <- atOnce(numbers, inFlight, func(number int) error {
			_, err := f.slots[number].node.Join([]string{seed})
			return err
		})
	}()
	failed := 0
	select {
	case failed = <-done:
	case <-time.After(time.Until(deadline)):
	}
	missing := f.awaitViews(deadline)
	return fleetAnswer{TookMs: took(began, missing), Failed: failed, Missing: missing}, nil
}

func (f *fleet) running() []*memberlist.Memberlist {
	var nodes []*memberlist.Memberlist
	for _, slot := range f.slots {
		if slot.node != nil {
			nodes = append(nodes, slot.node)
		}
	}
	return nodes
}

// awaitViews waits until every node sees all that run, and tells how many do not.
func (f *fleet) awaitViews(deadline time.Time) int {
	nodes, complete := f.running(), 0
	for {
		for complete < len(nodes) && nodes[complete].NumMembers() == len(nodes) {
			complete++
		}
		over := !time.Now().Before(deadline)
		if complete == len(nodes) || over {
			missing := 0
			for _, node := range nodes {
				if node.NumMembers() != len(nodes) {
					missing++
				}
			}
			if missing == 0 || over {
				return missing
			}
			complete = 0
		}
		time.Sleep(fleetLookEvery)
	}
}

func (f *fleet) broadcast(length int, deadline time.Time) (fleetAnswer, error) {
	began, others := time.Now(), len(f.running())-1
	f.news.awaitBroadcast(length)
	f.broadcasts++
	f.slots[0].relay.send(randomPayload(length, f.broadcasts))
	for f.news.receiptCount() < others && time.Now().Before(deadline) {
		time.Sleep(fleetLookEvery)
	}
	answer := fleetAnswer{Missing: others - f.news.receiptCount()}
	if answer.Missing == 0 {
		answer.TookMs = f.news.lastReceipt(began)
	}
	return answer, nil
}

// randomPayload is bytes that cannot be compressed, the same that the other fleets send.
func randomPayload(length int, state uint64) []byte {
	payload := make([]byte, length)
	for i := range payload {
		state = state*6364136223846793005 + 1442695040888963407
		payload[i] = byte(state >> 56)
	}
	return payload
}

// take takes these out; from now on they are gone.
func (f *fleet) take(numbers []int) (map[int]*memberlist.Memberlist, error) {
	nodes := map[int]*memberlist.Memberlist{}
	for _, number := range numbers {
		if number <= 0 || number >= len(f.slots) || f.slots[number].node == nil {
			return nil, fmt.Errorf("node %d is the seed, or does not run", number)
		}
	}
	for _, number := range numbers {
		if f.slots[number].node == nil {
			continue
		}
		f.news.setGone(fleetName(number), true)
		nodes[number] = f.slots[number].node
		f.slots[number].node = nil
	}
	return nodes, nil
}

func (f *fleet) kill(numbers []int, deadline time.Time) (fleetAnswer, error) {
	began := time.Now()
	nodes, err := f.take(numbers)
	if err != nil {
		return fleetAnswer{}, err
	}
	atOnce(keys(nodes), len(numbers), func(number int) error { return nodes[number].Shutdown() })
	others := len(f.running())
	allKnow := func() bool {
		for _, number := range numbers {
			if know, _, _ := f.news.deathsOf(fleetName(number), began); know < others {
				return false
			}
		}
		return true
	}
	for !allKnow() && time.Now().Before(deadline) {
		time.Sleep(fleetLookEvery)
	}
	answer := fleetAnswer{}
	for _, number := range numbers {
		know, first, last := f.news.deathsOf(fleetName(number), began)
		answer.Missing += max(0, others-know)
		if know < others {
			last = nil
		}
		answer.FirstMs, answer.LastMs = append(answer.FirstMs, first), append(answer.LastMs, last)
	}
	answer.TookMs = took(began, answer.Missing)
	return answer, nil
}

func (f *fleet) leave(numbers []int, deadline time.Time) (fleetAnswer, error) {
	began := time.Now()
	nodes, err := f.take(numbers)
	if err != nil {
		return fleetAnswer{}, err
	}
	failed := atOnce(keys(nodes), len(numbers), func(number int) error {
		left := nodes[number].Leave(leaveLimit)
		if err := nodes[number].Shutdown(); err != nil {
			return err
		}
		return left
	})
	missing := f.awaitViews(deadline)
	return fleetAnswer{TookMs: took(began, missing), Failed: failed, Missing: missing}, nil
}

func (f *fleet) restart(inFlight int, limit time.Duration) (fleetAnswer, error) {
	var gone []int
	for number := range f.slots {
		if f.slots[number].node == nil {
			f.news.setGone(fleetName(number), false)
			if err := f.start(number); err != nil {
				return fleetAnswer{}, err
			}
			gone = append(gone, number)
		}
	}
	return f.join(gone, inFlight, time.Now(), time.Now().Add(limit))
}

// atOnce does this with each, so many at once, and tells how often it failed. What failed is said on the
// error output, once.
func atOnce(numbers []int, inFlight int, each func(int) error) int {
	turns, lock, tasks, failed := make(chan struct{}, max(1, inFlight)), sync.Mutex{}, sync.WaitGroup{}, 0
	for _, number := range numbers {
		tasks.Add(1)
		go func() {
			defer tasks.Done()
			turns <- struct{}{}
			defer func() { <-turns }()
			if err := each(number); err != nil {
				lock.Lock()
				defer lock.Unlock()
				if failed++; failed == 1 {
					fmt.Fprintf(os.Stderr, "failed: %v\n", err)
				}
			}
		}()
	}
	tasks.Wait()
	return failed
}

func keys(nodes map[int]*memberlist.Memberlist) []int {
	return slices.Collect(maps.Keys(nodes))
}

func since(began time.Time) *float64 {
	millis := time.Since(began).Seconds() * 1e3
	return &millis
}

func took(began time.Time, missing int) *float64 {
	if missing > 0 {
		return nil
	}
	return since(began)
}
