package main

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"io"
)

// decodeLines answers each line {"id":N,"kind":"packet"|"stream","hex":"..."} of the input by one
// line {"id":N,"leaves":[...]}: what the library makes of those bytes, as they are after label and
// encryption were taken off.
func decodeLines(input io.Reader, output io.Writer) error {
	streams, err := newStreamReader()
	if err != nil {
		return err
	}
	lines := bufio.NewReaderSize(input, 1<<16)
	answers := bufio.NewWriterSize(output, 1<<16)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 1 {
			if _, err := answers.Write(decodeLine(streams, line)); err != nil {
				return err
			}
		}
		// Who waits for an answer before it sends more must get it.
		if lines.Buffered() == 0 || err != nil {
			if err := answers.Flush(); err != nil {
				return err
			}
		}
		switch {
		case err == io.EOF:
			return nil
		case err != nil:
			return err
		}
	}
}

func decodeLine(streams *streamReader, line []byte) []byte {
	var asked struct {
		ID   json.RawMessage `json:"id"`
		Kind string          `json:"kind"`
		Hex  string          `json:"hex"`
	}
	err := json.Unmarshal(line, &asked)
	if asked.ID == nil {
		asked.ID = []byte("null")
	}
	answer := append([]byte(`{"id":`), asked.ID...)
	var bytes []byte
	if err == nil {
		bytes, err = hex.DecodeString(asked.Hex)
	}
	var leaves []leaf
	switch {
	case err != nil:
	case asked.Kind == "packet":
		leaves = readPacket(bytes)
	case asked.Kind == "stream":
		leaves = []leaf{streams.read(bytes)}
	default:
		err = fmt.Errorf("unknown kind %q", asked.Kind)
	}
	if err != nil {
		text, _ := json.Marshal(err.Error())
		return append(append(append(answer, `,"error":`...), text...), "}\n"...)
	}
	answer = append(answer, `,"leaves":[`...)
	for i, leaf := range leaves {
		if i > 0 {
			answer = append(answer, ',')
		}
		answer = append(append(answer, leaf...), '}')
	}
	return append(answer, "]}\n"...)
}

// readPacket does what ingestPacket does after decryption.
func readPacket(buf []byte) []leaf {
	var p packetReader
	if len(buf) >= 5 && buf[0] == hasCrcMsg {
		crc := crc32.ChecksumIEEE(buf[5:])
		expected := binary.BigEndian.Uint32(buf[1:5])
		if crc != expected {
			return []leaf{failed("crc", fmt.Errorf("invalid checksum: %x, %x", crc, expected))}
		}
		buf = buf[5:]
	}
	p.command(buf)
	return p.leaves
}

type packetReader struct {
	leaves []leaf
}

func (p *packetReader) tell(leaf leaf) {
	p.leaves = append(p.leaves, leaf)
}

// command does what handleCommand does, and packetHandler after it. Whatever a handler does with a
// message that it could decode, the message counts as read.
func (p *packetReader) command(buf []byte) {
	if len(buf) < 1 {
		p.tell(failed("empty", fmt.Errorf("missing message type byte")))
		return
	}
	kind, buf := buf[0], buf[1:]
	switch kind {
	case compoundMsg:
		p.compound(buf)
	case compressMsg:
		p.compressed(buf)
	case userMsg:
		p.tell(userLeaf(buf))
	case pingMsg:
		p.message("ping", buf, &ping{})
	case indirectPingMsg:
		p.message("indirect_ping", buf, &indirectPingReq{})
	case ackRespMsg:
		p.message("ack", buf, &ackResp{})
	case nackRespMsg:
		p.message("nack", buf, &nackResp{})
	case suspectMsg:
		p.message("suspect", buf, &suspect{})
	case aliveMsg:
		p.message("alive", buf, &alive{})
	case deadMsg:
		p.message("dead", buf, &dead{})
	default:
		p.tell(unknown(kind))
	}
}

func (p *packetReader) compound(buf []byte) {
	var (
		truncated int
		parts     [][]byte
	)
	err := guarded(func() (err error) {
		truncated, parts, err = decodeCompoundMessage(buf)
		return err
	})
	if err != nil {
		p.tell(failed("compound", err))
		return
	}
	for _, part := range parts {
		p.command(part)
	}
	if truncated > 0 {
		p.tell(newLeaf("compound").field("truncated", truncated))
	}
}

func (p *packetReader) compressed(buf []byte) {
	var payload []byte
	err := guarded(func() (err error) {
		payload, err = decompressPayload(buf)
		return err
	})
	if err != nil {
		p.tell(failed("compress", err))
		return
	}
	p.command(payload)
}

func (p *packetReader) message(name string, buf []byte, message any) {
	if err := guarded(func() error { return decode(buf, message) }); err != nil {
		p.tell(failed(name, err))
		return
	}
	p.tell(newLeaf(name).fields(message))
}
