package main

import (
	"encoding/hex"
	"encoding/json"
	"os"
	"sync"
	"unicode/utf8"
	"unsafe"

	"github.com/hashicorp/memberlist"
)

// fields are those of one JSON object.
type fields map[string]any

// text adds bytes as text; or in hexadecimal, under a name that says so, if they are not UTF-8.
func (f fields) text(name string, bytes []byte) {
	if utf8.Valid(bytes) {
		f[name] = string(bytes)
	} else {
		f[name+"_hex"] = hex.EncodeToString(bytes)
	}
}

// output writes reports one after another. It never makes anyone wait: the library calls its
// delegates under its own lock, and a driver that reads late must not change what it sees.
type output struct {
	lock  sync.Mutex
	lines [][]byte
	// Has room for one signal that there are lines, or that there will be no more.
	more   chan struct{}
	closed bool
}

// start writes a first report, then those that came before and will come. What it returns tells
// when everything is written.
func (o *output) start(ready fields) <-chan error {
	done := make(chan error, 1)
	o.lock.Lock()
	o.more = make(chan struct{}, 1)
	o.lines = append([][]byte{render("ready", ready)}, o.lines...)
	o.signal()
	o.lock.Unlock()
	go func() { done <- o.write() }()
	return done
}

func (o *output) tell(event string, about fields) {
	line := render(event, about)
	o.lock.Lock()
	o.lines = append(o.lines, line)
	o.signal()
	o.lock.Unlock()
}

func (o *output) fail(command string, err error) {
	about := fields{"error": err.Error()}
	if command != "" {
		about["command"] = command
	}
	o.tell("error", about)
}

func (o *output) close() {
	o.lock.Lock()
	o.closed = true
	o.signal()
	o.lock.Unlock()
}

func (o *output) signal() {
	select {
	case o.more <- struct{}{}:
	default:
	}
}

func (o *output) write() error {
	for range o.more {
		o.lock.Lock()
		lines, closed := o.lines, o.closed
		o.lines = nil
		o.lock.Unlock()
		for _, line := range lines {
			if _, err := os.Stdout.Write(line); err != nil {
				return err
			}
		}
		if closed {
			break
		}
	}
	return nil
}

func render(event string, about fields) []byte {
	about["event"] = event
	line, err := json.Marshal(about)
	if err != nil {
		// Texts, numbers and lists of them: there is nothing that JSON cannot hold.
		panic(err)
	}
	return append(line, '\n')
}

// nodeFields are what the library tells of a node.
func nodeFields(node *memberlist.Node) fields {
	about := fields{
		"name": node.Name,
		"addr": node.Address(),
		// 4 or 16: the library takes the two forms of an IPv4 address for two addresses.
		"addr_bytes": len(node.Addr),
		"vsn":        []int{int(node.PMin), int(node.PMax), int(node.PCur), int(node.DMin), int(node.DMax), int(node.DCur)},
	}
	about.text("meta", node.Meta)
	return about
}

// recordFields add what the library knows of a node and does not tell.
func recordFields(record *nodeState) fields {
	about := nodeFields(&record.Node)
	about["state"] = stateName(record.State)
	about["incarnation"] = record.Incarnation
	return about
}

// lentRecord is the record behind a node that an event delegate is lent: its first field. Only to be
// read in the delegate, where the library holds its lock.
func lentRecord(node *memberlist.Node) *nodeState {
	return (*nodeState)(unsafe.Pointer(node))
}

func stateName(state memberlist.NodeStateType) string {
	switch state {
	case memberlist.StateAlive:
		return "alive"
	case memberlist.StateSuspect:
		return "suspect"
	case memberlist.StateDead:
		return "dead"
	case memberlist.StateLeft:
		return "left"
	default:
		return "unknown"
	}
}
