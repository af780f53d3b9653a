// java Caller.java PORT KEY LOOK FILL VALUE: reads through the cache; VALUE stands for the table.
import java.io.*;
import java.net.Socket;
import java.security.*;
import java.util.*;
import static java.nio.charset.StandardCharsets.UTF_8;

class Caller {
    static DataInputStream in;
    static OutputStream out;

    static String line() throws IOException {
        var text = new ByteArrayOutputStream();
        for (int c = in.readByte(); c != '\n'; c = in.readByte()) if (c != '\r') text.write(c);
        return text.toString(UTF_8);
    }

    static List<String> reply() throws IOException {
        String line = line();
        if (line.charAt(0) == '$') {
            byte[] text = new byte[Integer.parseInt(line.substring(1))];
            in.readFully(text);
            in.skipBytes(2);
            return List.of(new String(text, UTF_8));
        }
        if (line.charAt(0) != '*') return List.of(line);
        var all = new ArrayList<String>();
        for (int left = Integer.parseInt(line.substring(1)); left > 0; left--) all.addAll(reply());
        return all;
    }

    static List<String> command(String first, String second, String... rest) throws IOException {
        var words = new ArrayList<>(List.of(first, second, "1"));
        words.addAll(List.of(rest));
        var text = new StringBuilder("*" + words.size() + "\r\n");
        for (String word : words) text.append("$" + word.getBytes(UTF_8).length + "\r\n" + word + "\r\n");
        out.write(text.toString().getBytes(UTF_8));
        return reply();
    }

    static List<String> run(String script, String... rest) throws Exception {
        byte[] sha = MessageDigest.getInstance("SHA-1").digest(script.getBytes(UTF_8));
        var answer = command("EVALSHA", HexFormat.of().formatHex(sha), rest);
        if (answer.get(0).startsWith("-NOSCRIPT")) answer = command("EVAL", script, rest);
        if (answer.get(0).startsWith("-")) throw new IOException(answer.get(0));
        return answer;
    }

    public static void main(String[] args) throws Exception {
        String key = args[1], look = args[2], fill = args[3], value = args[4];
        var socket = new Socket("127.0.0.1", Integer.parseInt(args[0]));
        in = new DataInputStream(new BufferedInputStream(socket.getInputStream()));
        out = socket.getOutputStream();
        String token = Long.toHexString(new SecureRandom().nextLong());
        var seen = run(look, key, token, "5000", "0");
        String found = value; // here: a consistent read of the table, after the look
        if (seen.get(0).equals("hit")) found = seen.get(1).substring(seen.get(1).indexOf('|') + 1);
        if (seen.get(0).equals("lease")) run(fill, key, seen.get(2), "V:|" + value, "60000");
        System.out.println(seen.get(0) + " " + found);
    }
}
