package main

import (
	"encoding/base64"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/memberlist"
)

// settings are what the flags say.
type settings struct {
	config     *memberlist.Config
	join       []string
	meta       string
	state      string
	ackPayload string
}

var presets = map[string]func() *memberlist.Config{
	"lan":   memberlist.DefaultLANConfig,
	"wan":   memberlist.DefaultWANConfig,
	"local": memberlist.DefaultLocalConfig,
}

// readFlags reads the command line. The preset counts from the beginning, wherever it stands.
func readFlags(args []string) (*settings, error) {
	var bind, advertise string
	var keys [][]byte
	s := &settings{}
	flags := flag.NewFlagSet("go-peer", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	// Each runs on the configuration of the preset, which is known only when all flags are read.
	var changes []func(*memberlist.Config) error
	change := func(name, usage string, apply func(*memberlist.Config, string) error) {
		// Not the package's own kinds of flags, whose booleans take no value of their own.
		flags.Func(name, usage, func(text string) error {
			changes = append(changes, func(config *memberlist.Config) error {
				if err := apply(config, text); err != nil {
					return fmt.Errorf("--%s: %w", name, err)
				}
				return nil
			})
			return nil
		})
	}
	name := flags.String("name", "", "the name of this node")
	preset := flags.String("preset", "lan", "lan, wan or local")
	flags.StringVar(&bind, "bind", "", "ADDR:PORT to listen at; port 0 finds a free one")
	flags.StringVar(&advertise, "advertise", "", "ADDR:PORT that others are told")
	flags.StringVar(&s.meta, "meta", "", "TEXT that every member gets to know")
	flags.StringVar(&s.state, "state", "", "TEXT to exchange in every push/pull")
	flags.StringVar(&s.ackPayload, "ack-payload", "", "TEXT to answer pings with")
	flags.Func("join", "a member to join; repeatable", func(text string) error {
		s.join = append(s.join, text)
		return nil
	})
	flags.Func("key", "a key in BASE64; repeatable, the first is the primary", func(text string) error {
		key, err := base64.StdEncoding.DecodeString(text)
		keys = append(keys, key)
		return err
	})
	change("label", "the name of the cluster", func(c *memberlist.Config, text string) error {
		c.Label = text
		return nil
	})
	change("delegate-versions", "MIN:MAX:CUR", delegateVersions)
	flagOf(change, "protocol", strconv.Atoi, func(c *memberlist.Config, value int) {
		// What does not fit is as wrong as 0, which Create refuses.
		if c.ProtocolVersion = uint8(value); int(c.ProtocolVersion) != value {
			c.ProtocolVersion = 0
		}
	})
	for name, field := range boolFlags {
		flagOf(change, name, strconv.ParseBool, func(c *memberlist.Config, value bool) { *field(c) = value })
	}
	for name, field := range intFlags {
		flagOf(change, name, strconv.Atoi, func(c *memberlist.Config, value int) { *field(c) = value })
	}
	for name, field := range durationFlags {
		flagOf(change, name, time.ParseDuration, func(c *memberlist.Config, value time.Duration) { *field(c) = value })
	}

	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	if flags.NArg() > 0 {
		return nil, errors.New("a value belongs to no flag")
	}
	if *name == "" || bind == "" {
		return nil, errors.New("--name and --bind are needed")
	}
	defaults, ok := presets[*preset]
	if !ok {
		return nil, errors.New("--preset: lan, wan or local")
	}
	s.config = defaults()
	s.config.Name = *name
	s.config.LogOutput = os.Stderr
	if len(s.meta) > memberlist.MetaMaxSize {
		return nil, errMetaTooLong
	}
	if err := addresses(s.config, bind, advertise); err != nil {
		return nil, err
	}
	if len(keys) > 0 {
		ring, err := memberlist.NewKeyring(keys, keys[0])
		if err != nil {
			return nil, fmt.Errorf("--key: %w", err)
		}
		s.config.Keyring = ring
	}
	for _, change := range changes {
		if err := change(s.config); err != nil {
			return nil, err
		}
	}
	return s, nil
}

var errMetaTooLong = fmt.Errorf("meta is over the limit of %d bytes", memberlist.MetaMaxSize)

var boolFlags = map[string]func(*memberlist.Config) *bool{
	"compress":         func(c *memberlist.Config) *bool { return &c.EnableCompression },
	"verify-incoming":  func(c *memberlist.Config) *bool { return &c.GossipVerifyIncoming },
	"verify-outgoing":  func(c *memberlist.Config) *bool { return &c.GossipVerifyOutgoing },
	"disable-tcp-ping": func(c *memberlist.Config) *bool { return &c.DisableTcpPings },
}

var intFlags = map[string]func(*memberlist.Config) *int{
	"udp-buffer":      func(c *memberlist.Config) *int { return &c.UDPBufferSize },
	"suspicion-mult":  func(c *memberlist.Config) *int { return &c.SuspicionMult },
	"indirect-checks": func(c *memberlist.Config) *int { return &c.IndirectChecks },
	"gossip-nodes":    func(c *memberlist.Config) *int { return &c.GossipNodes },
}

var durationFlags = map[string]func(*memberlist.Config) *time.Duration{
	"reclaim":            func(c *memberlist.Config) *time.Duration { return &c.DeadNodeReclaimTime },
	"probe-interval":     func(c *memberlist.Config) *time.Duration { return &c.ProbeInterval },
	"probe-timeout":      func(c *memberlist.Config) *time.Duration { return &c.ProbeTimeout },
	"gossip-interval":    func(c *memberlist.Config) *time.Duration { return &c.GossipInterval },
	"push-pull-interval": func(c *memberlist.Config) *time.Duration { return &c.PushPullInterval },
	"gossip-to-the-dead": func(c *memberlist.Config) *time.Duration { return &c.GossipToTheDeadTime },
	"tcp-timeout":        func(c *memberlist.Config) *time.Duration { return &c.TCPTimeout },
}

// flagOf defines a flag whose value is read by parse.
func flagOf[T any](
	change func(name, usage string, apply func(*memberlist.Config, string) error),
	name string, parse func(string) (T, error), set func(*memberlist.Config, T),
) {
	change(name, fmt.Sprintf("a %T", *new(T)), func(config *memberlist.Config, text string) error {
		value, err := parse(text)
		if err == nil {
			set(config, value)
		}
		return err
	})
}

func delegateVersions(config *memberlist.Config, text string) error {
	parts := strings.Split(text, ":")
	if len(parts) != 3 {
		return errors.New("three numbers are needed, MIN:MAX:CUR")
	}
	into := [3]*uint8{
		&config.DelegateProtocolMin, &config.DelegateProtocolMax, &config.DelegateProtocolVersion,
	}
	for i, part := range parts {
		value, err := strconv.ParseUint(part, 10, 8)
		if err != nil {
			return err
		}
		*into[i] = uint8(value)
	}
	return nil
}

func addresses(config *memberlist.Config, bind, advertise string) error {
	var err error
	if config.BindAddr, config.BindPort, err = splitAddr(bind); err != nil {
		return fmt.Errorf("--bind: %w", err)
	}
	config.AdvertisePort = config.BindPort
	if advertise == "" {
		return nil
	}
	if config.AdvertiseAddr, config.AdvertisePort, err = splitAddr(advertise); err != nil {
		return fmt.Errorf("--advertise: %w", err)
	}
	// Create replaces both ports by the one that it finds.
	if config.BindPort == 0 && config.AdvertisePort != 0 {
		return errors.New("--advertise: its port must be 0 if that of --bind is")
	}
	if config.AdvertisePort == 0 {
		config.AdvertisePort = config.BindPort
	}
	return nil
}

func splitAddr(text string) (string, int, error) {
	host, port, err := net.SplitHostPort(text)
	if err != nil {
		return "", 0, err
	}
	number, err := strconv.ParseUint(port, 10, 16)
	return host, int(number), err
}

func joinAddr(host string, port int) string {
	return net.JoinHostPort(host, strconv.Itoa(port))
}
