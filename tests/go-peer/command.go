package main

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/hashicorp/memberlist"
)

// tellTimeout bounds how long others may take to be told: of the farewell, or of new meta.
const tellTimeout = 10 * time.Second

// peer is the running node.
type peer struct {
	node      *memberlist.Memberlist
	config    *memberlist.Config
	delegates *delegates
	output    *output
}

// obey carries out one line, and tells whether it was the last. Text is taken as it stands.
func (p *peer) obey(line string) (stop bool) {
	command, rest := splitWord(line)
	var err error
	switch command {
	case "members":
		p.members()
	case "join":
		if seeds := strings.Fields(rest); len(seeds) > 0 {
			p.join(command, seeds)
		} else {
			err = errors.New("join needs at least one ADDR")
		}
	case "send":
		err = p.send(rest, p.node.SendReliable)
	case "send-packet":
		err = p.send(rest, p.node.SendBestEffort)
	case "broadcast":
		err = p.broadcast(rest)
	case "ping":
		err = p.ping(rest)
	case "meta":
		err = p.updateMeta(rest)
	case "state":
		p.delegates.setState(rest)
		p.output.tell("state", fields{"text": rest})
	case "health":
		p.output.tell("health", fields{
			"name":    p.config.Name,
			"score":   p.node.GetHealthScore(),
			"members": p.node.NumMembers(),
		})
	case "keys":
		err = p.keys(rest)
	case "leave":
		if err = p.node.Leave(tellTimeout); err == nil {
			p.output.tell("left", fields{"name": p.config.Name})
		}
	case "quit":
		err = p.node.Leave(tellTimeout)
		stop = true
	case "shutdown":
		stop = true
	default:
		command, err = "", fmt.Errorf("unknown command %q", command)
	}
	if err != nil {
		p.output.fail(command, err)
	}
	return stop
}

// splitWord gives the first word, and what stands behind the space after it.
func splitWord(line string) (word, rest string) {
	line = strings.TrimLeftFunc(line, unicode.IsSpace)
	end := strings.IndexFunc(line, unicode.IsSpace)
	if end < 0 {
		return line, ""
	}
	return line[:end], strings.TrimLeftFunc(line[end:], unicode.IsSpace)
}

func (p *peer) members() {
	here := make(map[string]bool)
	for _, member := range p.node.Members() {
		here[member.Name] = true
	}
	names := p.delegates.knownNames()
	slices.Sort(names)
	members, gone := []fields{}, []fields{}
	for _, name := range names {
		about := p.record(name)
		switch {
		case about == nil:
			// It is forgotten.
		case here[name]:
			members = append(members, about)
		default:
			gone = append(gone, about)
		}
	}
	p.output.tell("members", fields{"members": members, "gone": gone})
}

// record reads what the library knows of a node; nil if nothing.
func (p *peer) record(name string) (about fields) {
	changeNode(p.node, name, func(record *nodeState) {
		if record != nil {
			about = recordFields(record)
		}
	})
	return about
}

// join tries each seed by itself, so that every one that fails has its line.
func (p *peer) join(command string, seeds []string) {
	joined := []string{}
	for _, seed := range seeds {
		if _, err := p.node.Join([]string{seed}); err != nil {
			// The library lists errors over several lines.
			words := strings.Join(strings.Fields(err.Error()), " ")
			p.output.fail(command, fmt.Errorf("could not join %s: %s", seed, words))
			continue
		}
		joined = append(joined, seed)
	}
	if len(joined) == 0 {
		p.output.fail(command, errors.New("no seed could be joined; the peer goes on without"))
		return
	}
	p.output.tell("joined", fields{"seeds": joined, "members": p.node.NumMembers()})
}

func (p *peer) member(name string) (*memberlist.Node, error) {
	for _, member := range p.node.Members() {
		if member.Name == name {
			return member, nil
		}
	}
	return nil, fmt.Errorf("no member is called %q", name)
}

func (p *peer) send(rest string, how func(*memberlist.Node, []byte) error) error {
	name, text := splitWord(rest)
	if text == "" {
		return errors.New("NAME and TEXT are needed")
	}
	member, err := p.member(name)
	if err != nil {
		return err
	}
	if err := how(member, []byte(text)); err != nil {
		return err
	}
	p.output.tell("sent", fields{"name": name, "bytes": len(text)})
	return nil
}

func (p *peer) broadcast(text string) error {
	if text == "" {
		return errors.New("broadcast needs TEXT")
	}
	p.delegates.broadcasts.QueueBroadcast(broadcast(text))
	p.output.tell("broadcast", fields{"bytes": len(text)})
	return nil
}

func (p *peer) ping(name string) error {
	member, err := p.member(name)
	if err != nil {
		return err
	}
	addr := &net.UDPAddr{IP: member.Addr, Port: int(member.Port)}
	rtt, err := p.node.Ping(name, addr)
	if err != nil {
		return err
	}
	p.output.tell("pong", fields{"name": name, "addr": addr.String(), "rtt_ms": millis(rtt)})
	return nil
}

func (p *peer) updateMeta(meta string) error {
	// The library would panic.
	if len(meta) > memberlist.MetaMaxSize {
		return errMetaTooLong
	}
	p.delegates.setMeta(meta)
	if err := p.node.UpdateNode(tellTimeout); err != nil {
		return err
	}
	p.output.tell("meta", fields{"name": p.config.Name, "meta": meta})
	return nil
}

// keys changes the keys of this node alone: the library has no way to tell others of keys.
func (p *peer) keys(rest string) error {
	step, encoded := splitWord(rest)
	ring := p.config.Keyring
	if ring == nil {
		return errors.New("this node has no keys; start it with --key")
	}
	key, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		return errors.New("the key is not base64")
	}
	switch step {
	case "list":
	case "install":
		err = ring.AddKey(key)
	case "activate":
		err = ring.UseKey(key)
	case "remove":
		err = ring.RemoveKey(key)
	default:
		err = errors.New("keys needs list, install, activate or remove")
	}
	if err != nil {
		return err
	}
	keys := []string{}
	for _, key := range ring.GetKeys() {
		keys = append(keys, base64.StdEncoding.EncodeToString(key))
	}
	p.output.tell("keys", fields{"step": step, "keys": keys})
	return nil
}
