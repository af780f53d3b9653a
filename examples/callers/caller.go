// go run caller.go PORT KEY LOOK FILL VALUE: reads through the cache; VALUE stands for the table.
package main

import (
	"bufio"
	"crypto/rand"
	"crypto/sha1"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
)

type client struct {
	conn net.Conn
	in   *bufio.Reader
}

func (c client) reply() []string {
	line, err := c.in.ReadString('\n')
	if err != nil {
		panic(err)
	}
	size, _ := strconv.Atoi(strings.TrimSpace(line[1:]))
	switch line[0] {
	case '*':
		var all []string
		for range size {
			all = append(all, c.reply()...)
		}
		return all
	case '$':
		text := make([]byte, size+2)
		if _, err := io.ReadFull(c.in, text); err != nil {
			panic(err)
		}
		return []string{string(text[:size])}
	}
	return []string{strings.TrimSpace(line)}
}

func (c client) command(words ...string) []string {
	fmt.Fprintf(c.conn, "*%d\r\n", len(words))
	for _, word := range words {
		fmt.Fprintf(c.conn, "$%d\r\n%s\r\n", len(word), word)
	}
	return c.reply()
}

func (c client) run(script string, rest ...string) []string {
	sha := fmt.Sprintf("%x", sha1.Sum([]byte(script)))
	answer := c.command(append([]string{"EVALSHA", sha, "1"}, rest...)...)
	if strings.HasPrefix(answer[0], "-NOSCRIPT") {
		answer = c.command(append([]string{"EVAL", script, "1"}, rest...)...)
	}
	if strings.HasPrefix(answer[0], "-") {
		panic(answer[0])
	}
	return answer
}

func main() {
	port, key, look, fill, value := os.Args[1], os.Args[2], os.Args[3], os.Args[4], os.Args[5]
	conn, err := net.Dial("tcp", "127.0.0.1:"+port)
	if err != nil {
		panic(err)
	}
	c := client{conn, bufio.NewReader(conn)}
	random := make([]byte, 8)
	if _, err := rand.Read(random); err != nil {
		panic(err)
	}
	token := fmt.Sprintf("%x", random)
	seen := c.run(look, key, token, "5000", "0")
	found := value // here: a consistent read of the table, after the look
	switch seen[0] {
	case "hit":
		_, found, _ = strings.Cut(seen[1], "|")
	case "lease":
		c.run(fill, key, seen[2], "V:|"+value, "60000")
	}
	fmt.Println(seen[0], found)
}
