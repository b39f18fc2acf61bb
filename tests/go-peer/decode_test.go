package main

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"github.com/hashicorp/memberlist"
)

// vector is a captured case: what the library wrote, or was given to read.
type vector struct {
	Name   string         `json:"name"`
	Hex    string         `json:"hex"`
	Inputs map[string]any `json:"inputs"`
	Expect map[string]any `json:"expect"`
}

func vectors(t *testing.T, file string) []vector {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "vectors", "hashicorp", file))
	if err != nil {
		t.Fatal(err)
	}
	var found []vector
	if err := json.Unmarshal(text, &found); err != nil {
		t.Fatal(err)
	}
	if len(found) == 0 {
		t.Fatalf("no cases in %s", file)
	}
	return found
}

// read asks as a driver would, by a line.
func read(t *testing.T, kind, hex string) []map[string]any {
	t.Helper()
	var output bytes.Buffer
	line := fmt.Sprintf(`{"id":7,"kind":%q,"hex":%q}`, kind, hex)
	if err := decodeLines(strings.NewReader(line), &output); err != nil {
		t.Fatal(err)
	}
	var answer struct {
		ID     int              `json:"id"`
		Leaves []map[string]any `json:"leaves"`
	}
	if err := json.Unmarshal(output.Bytes(), &answer); err != nil {
		t.Fatalf("%s: %v", output.String(), err)
	}
	if answer.ID != 7 || answer.Leaves == nil {
		t.Fatalf("no answer: %s", output.String())
	}
	return answer.Leaves
}

func one(t *testing.T, kind, hex string) map[string]any {
	t.Helper()
	leaves := read(t, kind, hex)
	if len(leaves) != 1 {
		t.Fatalf("%d leaves: %v", len(leaves), leaves)
	}
	return leaves[0]
}

func hexOf(text string) string { return hex.EncodeToString([]byte(text)) }

func TestDecodeVectors(t *testing.T) {
	types := map[string]string{"ping": "00", "indirectPingReq": "01"}
	for _, c := range vectors(t, "decode.json") {
		t.Run(c.Name, func(t *testing.T) {
			leaf := one(t, "packet", types[c.Inputs["struct"].(string)]+c.Hex)
			if expected := c.Expect["error"].(string); expected != "" {
				if leaf["error"] != expected {
					t.Fatalf("%v is not the error %q", leaf, expected)
				}
				return
			}
			isNil := c.Expect["SourceAddrNil"]
			for name, expected := range c.Expect {
				got := leaf[name]
				switch name {
				case "error", "SourceAddrNil":
					continue
				case "SourceAddr":
					if isNil.(bool) {
						expected = nil
					}
				case "Node", "SourceNode":
					// The captured text has no bytes that are not UTF-8.
					bytes, _ := hex.DecodeString(got.(string))
					got = strings.ToValidUTF8(string(bytes), "\uFFFD")
				}
				if got != expected {
					t.Errorf("%s: %v instead of %v", name, got, expected)
				}
			}
		})
	}
}

func TestMessageVectors(t *testing.T) {
	for _, c := range vectors(t, "messages.json") {
		t.Run(c.Name, func(t *testing.T) {
			switch {
			case c.Name == "compress":
				one(t, "packet", c.Hex)
			case c.Name == "push_node_state":
				header := "0683a44a6f696ec2a54e6f64657301ac5573657253746174654c656e00"
				leaf := one(t, "stream", header+c.Hex)
				states, _ := leaf["Nodes"].([]any)
				if len(states) != 1 {
					t.Fatal(leaf)
				}
				compareFields(t, states[0].(map[string]any), c.Inputs)
			case strings.HasPrefix(c.Name, "user_header"):
				length := int(c.Inputs["UserMsgLen"].(float64))
				if strings.HasPrefix(c.Hex, "81") {
					c.Hex = "08" + c.Hex
				}
				leaf := one(t, "stream", c.Hex+strings.Repeat("61", length)+"ffff")
				if leaf["payload"] != strings.Repeat("61", length) {
					t.Errorf("%v", leaf)
				}
				if used := len(c.Hex)/2 + length; leaf["used"] != float64(used) {
					t.Errorf("%v instead of %d bytes used", leaf["used"], used)
				}
			case c.Name == "err":
				compareFields(t, one(t, "stream", c.Hex), c.Inputs)
				if kind := one(t, "packet", c.Hex)["type"]; kind != "unknown 13" {
					t.Errorf("an error is no packet, and not %v", kind)
				}
			case c.Name == "user_packet":
				if leaf := one(t, "packet", c.Hex); leaf["payload"] != hexOf(c.Inputs["payload"].(string)) {
					t.Errorf("%v", leaf)
				}
			default:
				compareFields(t, one(t, "packet", c.Hex), c.Inputs)
			}
		})
	}
}

// compareFields holds a leaf to what was put in, as the vectors write it for people.
func compareFields(t *testing.T, leaf, inputs map[string]any) {
	t.Helper()
	if len(inputs) == 0 || leaf["error"] != nil {
		t.Fatalf("%v from %v", leaf, inputs)
	}
	for name, input := range inputs {
		expected := input
		if text, ok := input.(string); ok {
			if what, times, ok := strings.Cut(text, " x "); ok {
				n, _ := strconv.Atoi(times)
				text = strings.Repeat(strings.Trim(strings.TrimPrefix(what, "0x"), "'"), n)
			}
			switch name {
			case "Addr", "SourceAddr", "Target":
				ip := net.ParseIP(text)
				if short := ip.To4(); short != nil && !strings.HasPrefix(text, "::") {
					ip = short
				}
				expected = hex.EncodeToString(ip)
			case "Vsn":
				expected = ""
				for part := range strings.SplitSeq(text, ",") {
					n, _ := strconv.Atoi(part)
					expected = fmt.Sprintf("%s%02x", expected, n)
				}
			case "Meta", "Payload":
				expected = text
			default:
				expected = hexOf(text)
			}
		}
		if got, there := leaf[name]; got != expected || !there {
			t.Errorf("%s: %v instead of %v", name, got, expected)
		}
	}
}

func TestFramingVectors(t *testing.T) {
	for _, c := range vectors(t, "framing.json") {
		t.Run(c.Name, func(t *testing.T) {
			kind, _, _ := strings.Cut(c.Name, "_")
			switch kind {
			case "compound":
				compareCompound(t, c)
			case "crc":
				payload := c.Inputs["payload"].(string)
				if got, bare := read(t, "packet", c.Hex), read(t, "packet", payload); !reflect.DeepEqual(got, bare) {
					t.Errorf("%v instead of %v", got, bare)
				}
				spoilt := c.Hex[:2] + "00" + c.Hex[4:]
				if leaf := one(t, "packet", spoilt); leaf["type"] != "crc" || leaf["error"] == nil {
					t.Errorf("a wrong checksum gives %v", leaf)
				}
			case "label":
				compareLabel(t, c)
			case "lzw":
				compareLzw(t, c)
			default:
				t.Fatal("a case of an unknown kind")
			}
		})
	}
}

func compareCompound(t *testing.T, c vector) {
	leaves := read(t, "packet", c.Hex)
	parts, ok := c.Inputs["parts"].([]any)
	if c.Expect != nil {
		if expected, _ := c.Expect["error"].(string); expected != "" {
			if len(leaves) != 1 || leaves[0]["type"] != "compound" || leaves[0]["error"] != expected {
				t.Fatalf("%v is not the error %q", leaves, expected)
			}
			return
		}
		if count, counted := c.Expect["count"].(float64); counted {
			if len(leaves) != int(count) {
				t.Fatalf("%d leaves instead of %v", len(leaves), count)
			}
			return
		}
		parts, ok = c.Expect["parts"].([]any)
		ok = ok || c.Expect["parts"] == nil
	}
	if !ok {
		t.Fatal("neither parts nor a count")
	}
	expected := []map[string]any{}
	for _, part := range parts {
		expected = append(expected, read(t, "packet", part.(string))...)
	}
	if truncated, _ := c.Expect["truncated"].(float64); truncated > 0 {
		expected = append(expected, map[string]any{"type": "compound", "truncated": truncated})
	}
	if !reflect.DeepEqual(leaves, expected) {
		t.Errorf("%v instead of %v", leaves, expected)
	}
}

func compareLabel(t *testing.T, c vector) {
	packet, _ := hex.DecodeString(c.Hex)
	rest, label, err := memberlist.RemoveLabelHeaderFromPacket(packet)
	expected := c.Expect
	if expected == nil {
		expected = map[string]any{"error": "", "label": c.Inputs["label"], "rest": c.Inputs["packet"]}
	}
	if wanted := expected["error"].(string); wanted != "" {
		if err == nil || err.Error() != wanted {
			t.Errorf("%v instead of %s", err, wanted)
		}
		return
	}
	if err != nil || label != expected["label"] || hex.EncodeToString(rest) != expected["rest"] {
		t.Errorf("%q %x (%v) instead of %v", label, rest, err, expected)
	}
}

// compareLzw reads raw LZW inside of a user message, both by packet and by stream.
func compareLzw(t *testing.T, c vector) {
	raw, _ := hex.DecodeString(c.Hex)
	wrapped := fmt.Sprintf("82a4416c676f00a3427566db%08x%s", len(raw), c.Hex)
	bytes, _ := hex.DecodeString(wrapped)
	payload, err := decompressPayload(bytes)
	if length := int(c.Inputs["len"].(float64)); err != nil || len(payload) != length {
		t.Errorf("%d bytes (%v) instead of %d", len(payload), err, length)
	}
	if input, ok := c.Inputs["input"].(string); ok && hex.EncodeToString(payload) != input {
		t.Errorf("%x instead of %s", payload, input)
	}
	if leaf := one(t, "packet", "09"+wrapped); len(payload) == 0 && leaf["type"] != "empty" {
		t.Errorf("nothing is no message: %v", leaf)
	}
}

func TestPacketVectors(t *testing.T) {
	for _, c := range vectors(t, "packets.json") {
		t.Run(c.Name, func(t *testing.T) {
			packet, _ := hex.DecodeString(c.Hex)
			packet, label, err := memberlist.RemoveLabelHeaderFromPacket(packet)
			if err != nil {
				t.Fatal(err)
			}
			if key, ok := c.Inputs["key"].(string); ok {
				key, _ := hex.DecodeString(key)
				if packet, err = decryptPayload([][]byte{key}, packet, []byte(label)); err != nil {
					t.Fatal(err)
				}
			}
			leaves := read(t, "packet", hex.EncodeToString(packet))
			for _, leaf := range leaves {
				if leaf["error"] != nil || leaf["panic"] != nil {
					t.Errorf("%v", leaf)
				}
			}
			if payload, ok := c.Inputs["payload"].(string); ok && leaves[0]["payload"] != hexOf(payload) {
				t.Errorf("%v is not %q", leaves[0], payload)
			}
		})
	}
}

func TestStreamVectors(t *testing.T) {
	for _, c := range vectors(t, "streams.json") {
		t.Run(c.Name, func(t *testing.T) {
			if c.Hex == "" {
				t.Skip("it says nothing")
			}
			stream, _ := hex.DecodeString(c.Hex)
			stream, label, err := memberlist.RemoveLabelHeaderFromPacket(stream)
			if err != nil {
				t.Fatal(err)
			}
			if stream[0] == encryptMsg {
				stream = openFrame(t, c, stream, label)
			}
			leaf := one(t, "stream", hex.EncodeToString(stream))
			if leaf["error"] != nil {
				t.Fatalf("%v", leaf)
			}
			if used, ok := leaf["used"]; ok != (stream[0] != compressMsg) || ok && used != float64(len(stream)) {
				t.Errorf("%v of %d bytes used", used, len(stream))
			}
		})
	}
}

// openFrame decrypts a stream. Who answers repeats no label, but seals with it.
func openFrame(t *testing.T, c vector, frame []byte, label string) []byte {
	t.Helper()
	key, _ := hex.DecodeString(c.Inputs["key"].(string))
	for _, label := range []string{label, "dc1-prod"} {
		plain, err := decryptPayload([][]byte{key}, frame[5:], append(frame[:5:5], label...))
		if err == nil {
			return plain
		}
	}
	t.Fatal("the key does not fit")
	return nil
}

func TestLinesThatAreWrong(t *testing.T) {
	input := "\nno JSON\n" + `{"id":1,"kind":"letter","hex":"00"}` + "\n" +
		`{"id":2,"kind":"packet","hex":"0"}` + "\n" + `{"id":3,"kind":"packet","hex":"ff"}`
	var output bytes.Buffer
	if err := decodeLines(strings.NewReader(input), &output); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(output.String()), "\n")
	for i, expected := range []string{`{"id":null,"error":`, `{"id":1,"error":`, `{"id":2,"error":`, `{"id":3,"leaves":[`} {
		if i >= len(lines) || !strings.HasPrefix(lines[i], expected) {
			t.Errorf("line %d: %s instead of %s", i, lines, expected)
		}
	}
}

func TestPanicsAreTold(t *testing.T) {
	err := guarded(func() error { panic("far out of range") })
	if leaf := string(failed("ping", err)); leaf != `{"type":"ping","panic":"far out of range"` {
		t.Error(leaf)
	}
}

// The limits are the library's: nothing may be read of what announces more.
func TestLimits(t *testing.T) {
	header := func(nodes, state string) string {
		return "0683a44a6f696ec2a54e6f646573" + nodes + "ac5573657253746174654c656e" + state
	}
	cases := map[string]string{
		"too many nodes":   header("ce00100001", "00"),
		"negative nodes":   header("ff", "00"),
		"too much state":   header("00", "ce01400001"),
		"negative state":   header("00", "ff"),
		"too long message": "0881aa557365724d73674c656ece01400001",
		"nodes cut off":    header("02", "00"),
		"state cut off":    header("00", "02") + "61",
		"message cut off":  "0881aa557365724d73674c656e0261",
	}
	for name, bytes := range cases {
		if leaf := one(t, "stream", bytes); leaf["error"] == nil || leaf["used"] != nil {
			t.Errorf("%s: %v", name, leaf)
		}
	}
}

func BenchmarkDecode(b *testing.B) {
	line := []byte(`{"id":1,"kind":"packet","hex":"0486a441646472a47f000001ab496e6361726e6174696f6e01a44d657461c0a44e6f6465a3666f6fa4506f7274cd1f0aa356736ea6010502000000"}`)
	for b.Loop() {
		decodeLine(nil, line)
	}
}
