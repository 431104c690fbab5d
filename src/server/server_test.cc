// The whole server over real sockets, with a fake engine behind it.
#include "server/server.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <future>
#include <string>
#include <thread>

#include "server/fake_database.h"

namespace aionbd {
namespace {

/// A blocking client that sends bytes as they are. Thread safety: single owner.
class Client {
 public:
  explicit Client(uint16_t port) : fd_(::socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    connected_ = ::connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0;
    const timeval patience{10, 0};
    ::setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  }
  ~Client() { ::close(fd_); }
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  bool connected() const { return connected_; }
  bool send(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t sent = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (sent <= 0) return false;
      bytes.remove_prefix(static_cast<size_t>(sent));
    }
    return true;
  }

  struct Answer {
    int status = 0;  // 0: the connection ended without an answer
    std::string head;
    std::string body;
    bool has(std::string_view text) const { return head.find(text) != std::string::npos; }
  };
  Answer receive(bool head_only = false) {
    Answer out;
    size_t end = std::string::npos;
    while ((end = buffer_.find("\r\n\r\n")) == std::string::npos) {
      if (!fill()) return out;
    }
    out.head = buffer_.substr(0, end + 4);
    buffer_.erase(0, end + 4);
    out.status = std::stoi(out.head.substr(9, 3));
    const size_t at = out.head.find("content-length: ");
    if (head_only || at == std::string::npos) return out;
    const size_t length = std::stoul(out.head.substr(at + 16));
    while (buffer_.size() < length) {
      if (!fill()) return out;
    }
    out.body = buffer_.substr(0, length);
    buffer_.erase(0, length);
    return out;
  }
  Answer ask(std::string_view bytes) {
    send(bytes);
    return receive();
  }
  /// True if the server has closed and sent nothing more.
  bool at_end() { return buffer_.empty() && !fill(); }

 private:
  bool fill() {
    char bytes[65536];
    const ssize_t got = ::recv(fd_, bytes, sizeof bytes, 0);
    if (got <= 0) return false;
    buffer_.append(bytes, static_cast<size_t>(got));
    return true;
  }

  int fd_;
  bool connected_ = false;
  std::string buffer_;
};

std::string request(std::string_view method, std::string_view path, std::string_view body = {},
                    std::string_view fields = {}) {
  std::string out = std::string(method) + " " + std::string(path) + " HTTP/1.1\r\nHost: t\r\n";
  out += fields;
  if (!body.empty()) {
    out +=
        "Content-Type: application/json\r\nContent-Length: " + std::to_string(body.size()) + "\r\n";
  }
  return out + "\r\n" + std::string(body);
}

class ServerTest : public testing::Test {
 protected:
  void start(std::map<std::string, std::string> flags = {}) {
    flags.emplace("bind", "127.0.0.1:0");
    SettingSources sources;
    sources.flags = std::move(flags);
    auto loaded = load_settings(sources);
    ASSERT_TRUE(loaded.has_value()) << loaded.status().to_string();
    auto started = Server::start(
        (*loaded).settings,
        [this]() -> Result<std::unique_ptr<Database>> {
          while (hold_loading_.load()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
          if (fail_loading_.load()) return corruption("manifest is damaged");
          return std::unique_ptr<Database>(std::make_unique<FakeDatabase>(behaviour_));
        },
        Logger());
    ASSERT_TRUE(started.has_value()) << started.status().to_string();
    server_ = std::move(started).value();
    if (!hold_loading_.load() && !fail_loading_.load()) {
      while (!server_->ready()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  }
  void make_docs() {
    Client client(port());
    ASSERT_EQ(
        client.ask(request("POST", "/collections", R"({"name":"docs","dimension":2})")).status,
        200);
    ASSERT_EQ(client
                  .ask(request("POST", "/collections/docs/points",
                               R"({"points":[{"id":1,"values":[1,0]},{"id":2,"values":[0,1]}]})"))
                  .status,
              200);
  }
  uint16_t port() const { return server_->port(); }

  FakeBehaviour behaviour_;
  std::atomic<bool> hold_loading_{false};
  std::atomic<bool> fail_loading_{false};
  std::unique_ptr<Server> server_;
};

constexpr std::string_view kSearch = R"({"query":[1,0],"limit":1})";

TEST_F(ServerTest, AnswersTheSameHoweverTheRequestIsSplit) {
  start();
  make_docs();
  const std::string text = request("POST", "/collections/docs/search/topk", kSearch);
  const Client::Answer whole = Client(port()).ask(text);
  ASSERT_EQ(whole.status, 200) << whole.body;
  for (size_t i = 1; i < text.size(); ++i) {
    Client client(port());
    client.send(std::string_view(text).substr(0, i));
    if (i % 7 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    client.send(std::string_view(text).substr(i));
    const Client::Answer answer = client.receive();
    EXPECT_EQ(answer.status, 200) << i;
    EXPECT_EQ(answer.body, whole.body) << i;
  }
}

struct Case {
  std::string_view name;
  std::string text;
  int status;  // 0: closed without an answer
  bool closes;
};

std::vector<Case> framing_cases() {
  const std::string json =
      "POST /distance HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\n";
  const std::string body = R"({"left":[1],"right":[2]})";
  const std::string length = "Content-Length: " + std::to_string(body.size()) + "\r\n";
  const std::string chunked = "Transfer-Encoding: chunked\r\n";
  return {
      {"counted", json + length + "\r\n" + body, 200, false},
      {"chunked", json + chunked + "\r\n3\r\n{\"l\r\n15\r\neft\":[1],\"right\":[2]}\r\n0\r\n\r\n",
       200, false},
      {"trailer", json + chunked + "\r\n18\r\n" + body + "\r\n0\r\nX: y\r\n\r\n", 200, false},
      {"both", json + length + chunked + "\r\n0\r\n\r\n", 400, true},
      {"two lengths", json + length + length + "\r\n" + body, 400, true},
      {"bad chunk", json + chunked + "\r\nzz\r\n", 400, true},
      {"chunk without CRLF", json + chunked + "\r\n1\r\naXX", 400, true},
      {"bare LF", "GET /live HTTP/1.1\nHost: t\n\n", 400, true},
      {"fold", "GET /live HTTP/1.1\r\nHost: t\r\n x\r\n\r\n", 400, true},
      {"no host", "GET /live HTTP/1.1\r\n\r\n", 400, true},
      {"version", "GET /live HTTP/2.0\r\nHost: t\r\n\r\n", 400, true},
      {"too many fields",
       [] {
         std::string text = "GET /live HTTP/1.1\r\nHost: t\r\n";
         for (int i = 0; i < 100; ++i) text += "x: y\r\n";
         return text + "\r\n";
       }(),
       431, true},
      {"long line", "GET /" + std::string(9000, 'a') + " HTTP/1.1\r\nHost: t\r\n\r\n", 431, true},
      {"declared too large", json + "Content-Length: 16777217\r\n\r\n", 413, true},
      {"chunks too large", json + chunked + "\r\n1000001\r\n", 413, true},
      {"expect other", json + length + "Expect: x\r\n\r\n" + body, 400, true},
      {"encoded", json + length + "Content-Encoding: gzip\r\n\r\n" + body, 400, true},
      {"patch", "PATCH /collections HTTP/1.1\r\nHost: t\r\n\r\n", 405, false},
      {"trace", "TRACE /live HTTP/1.1\r\nHost: t\r\n\r\n", 405, false},
      {"options star", "OPTIONS * HTTP/1.1\r\nHost: t\r\n\r\n", 405, false},
      {"connect", "CONNECT a:1 HTTP/1.1\r\nHost: t\r\n\r\n", 405, false},
      {"unknown", "GET /nope HTTP/1.1\r\nHost: t\r\n\r\n", 404, false},
      {"trailing slash", "GET /live/ HTTP/1.1\r\nHost: t\r\n\r\n", 404, false},
      {"double slash", "GET //live HTTP/1.1\r\nHost: t\r\n\r\n", 404, false},
      {"bad escape", "GET /collections/%zz HTTP/1.1\r\nHost: t\r\n\r\n", 400, false},
      {"slash in name", "GET /collections/a%2fb HTTP/1.1\r\nHost: t\r\n\r\n", 400, false},
      {"dots in name", "GET /collections/%2e%2e HTTP/1.1\r\nHost: t\r\n\r\n", 400, false},
      {"nul in name", "GET /collections/%00 HTTP/1.1\r\nHost: t\r\n\r\n", 400, false},
      {"overlong", "GET /collections/%c0%ae HTTP/1.1\r\nHost: t\r\n\r\n", 400, false},
      {"twice encoded", "GET /collections/%252e HTTP/1.1\r\nHost: t\r\n\r\n", 400, false},
      {"semicolon", "GET /live;x HTTP/1.1\r\nHost: t\r\n\r\n", 404, false},
      {"duplicate query", "GET /collections?a=1&a=2 HTTP/1.1\r\nHost: t\r\n\r\n", 400, false},
      {"no content type", "POST /distance HTTP/1.1\r\nHost: t\r\n" + length + "\r\n" + body, 400,
       true},
      {"wrong content type",
       "POST /distance HTTP/1.1\r\nHost: t\r\nContent-Type: text/plain\r\nContent-Length: "
       "0\r\n\r\n",
       400, false},
      {"charset",
       "POST /distance HTTP/1.1\r\nHost: t\r\nContent-Type: application/json; charset=UTF-8\r\n" +
           length + "\r\n" + body,
       200, false},
      {"body on get", "GET /live HTTP/1.1\r\nHost: t\r\n" + length + "\r\n" + body, 200, false},
      {"http/1.0", "GET /live HTTP/1.0\r\n\r\n", 200, true},
      {"asks to close", "GET /live HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n", 200, true},
      {"empty line first", "\r\nGET /live HTTP/1.1\r\nHost: t\r\n\r\n", 200, false},
      {"tls", "\x16\x03\x01\x02\x00\x01", 0, true},
  };
}

TEST_F(ServerTest, FramingIsJudgedAlikeWholeSplitAndPipelined) {
  start({{"request_timeout_ms", "60000"}});
  const std::string good = request("GET", "/live");
  for (const Case& c : framing_cases()) {
    Client client(port());
    const Client::Answer answer = client.ask(c.text);
    EXPECT_EQ(answer.status, c.status) << c.name << ": " << answer.body;
    if (c.status >= 400) {
      EXPECT_TRUE(answer.has("application/json")) << c.name;
      EXPECT_EQ(answer.body.substr(0, 9), "{\"code\":\"") << c.name;
    }
    EXPECT_EQ(answer.has("allow: "), c.status == 405) << c.name;
    if (c.closes) {
      EXPECT_TRUE(client.at_end()) << c.name;
    } else {
      EXPECT_EQ(client.ask(good).status, 200) << c.name << ": the next request is lost";
    }
    // Behind a good request the verdict is the same.
    Client pipelined(port());
    pipelined.send(good + c.text);
    EXPECT_EQ(pipelined.receive().status, 200) << c.name;
    EXPECT_EQ(pipelined.receive().status, c.status) << c.name;
    // And in two parts, at every byte of short cases, at some of long ones.
    const size_t step = c.text.size() < 300 ? 1 : c.text.size() / 64;
    for (size_t i = 1; i < c.text.size(); i += step) {
      Client split(port());
      split.send(std::string_view(c.text).substr(0, i));
      std::this_thread::yield();
      split.send(std::string_view(c.text).substr(i));
      EXPECT_EQ(split.receive().status, c.status) << c.name << " split at " << i;
    }
  }
  EXPECT_EQ(Client(port()).ask(good).status, 200);
}

TEST_F(ServerTest, KeepsAliveAndAnswersPipelinedRequestsInOrder) {
  start();
  make_docs();
  Client client(port());
  std::string many;
  for (int i = 0; i < 100; ++i) {
    many +=
        request("GET", i % 2 == 0 ? "/collections/docs/points/1" : "/collections/docs/points/2");
  }
  client.send(many);
  for (int i = 0; i < 100; ++i) {
    const Client::Answer answer = client.receive();
    ASSERT_EQ(answer.status, 200);
    EXPECT_EQ(answer.body.substr(0, 7), i % 2 == 0 ? "{\"id\":1" : "{\"id\":2") << i;
  }
}

TEST_F(ServerTest, EchoesOnlySaneRequestIds) {
  start();
  Client client(port());
  EXPECT_TRUE(client.ask(request("GET", "/live", {}, "X-Request-Id: abc-1\r\n"))
                  .has("x-request-id: abc-1\r\n"));
  EXPECT_FALSE(client.ask(request("GET", "/live", {}, "X-Request-Id: a b\r\n")).has("a b"));
  const std::string longest(129, 'q');
  EXPECT_FALSE(
      client.ask(request("GET", "/live", {}, "X-Request-Id: " + longest + "\r\n")).has(longest));
}

TEST_F(ServerTest, HeadIsGetWithoutBody) {
  start();
  Client client(port());
  client.send(request("HEAD", "/live"));
  const Client::Answer answer = client.receive(true);
  EXPECT_EQ(answer.status, 200);
  EXPECT_FALSE(answer.has("content-length: 0"));
  EXPECT_EQ(client.ask(request("GET", "/live")).status, 200) << "no body bytes in between";
}

TEST_F(ServerTest, SendsContinueOnlyWhenTheBodyIsWelcome) {
  start();
  const std::string body = R"({"left":[1],"right":[2]})";
  const std::string head =
      "POST /distance HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\n"
      "Expect: 100-continue\r\nContent-Length: ";
  Client client(port());
  client.send(head + std::to_string(body.size()) + "\r\n\r\n");
  EXPECT_EQ(client.receive().status, 100);
  EXPECT_EQ(client.ask(body).status, 200);
  Client large(port());
  EXPECT_EQ(large.ask(head + "99999999\r\n\r\n").status, 413);
}

TEST_F(ServerTest, TakesLargeBodiesCountedAndChunked) {
  start({{"max_dimension", "65536"}, {"request_timeout_ms", "20000"}});
  std::string numbers = "1.5";
  for (int i = 1; i < 60000; ++i) numbers += ",0.25";
  const std::string body = "{\"left\":[" + numbers + "],\"right\":[" + numbers + "],\"pad\":\"" +
                           std::string(5 << 20, 'x') + "\"}";
  Client client(port());
  const Client::Answer counted = client.ask(request("POST", "/distance", body));
  EXPECT_EQ(counted.status, 200) << counted.body;
  std::string chunks =
      "POST /distance HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\n"
      "Transfer-Encoding: chunked\r\n\r\n";
  for (size_t at = 0; at < body.size(); at += 70000) {
    const std::string part = body.substr(at, 70000);
    char size[32];
    std::snprintf(size, sizeof size, "%zx\r\n", part.size());
    chunks += size + part + "\r\n";
  }
  chunks += "0\r\n\r\n";
  EXPECT_EQ(client.ask(chunks).body, counted.body);
}

TEST_F(ServerTest, RefusesAClientInTheMiddleOfALargeBodySoThatItReadsTheAnswer) {
  start({{"max_body_bytes", "1024"}, {"max_body_memory_bytes", "1048576"}});
  Client client(port());
  EXPECT_TRUE(client.send(request("POST", "/distance", std::string(4 << 20, 'x'))));
  EXPECT_EQ(client.receive().status, 413);
  EXPECT_TRUE(client.at_end());
}

TEST_F(ServerTest, AnswersHealthWhileEveryWorkSlotIsBusy) {
  start({{"max_concurrency", "4"}, {"request_timeout_ms", "5000"}});
  make_docs();
  behaviour_.delay_ms = 400;
  const auto search = [&] {
    return Client(port()).ask(request("POST", "/collections/docs/search/topk", kSearch));
  };
  std::vector<std::future<Client::Answer>> running;
  for (int i = 0; i < 12; ++i) running.push_back(std::async(std::launch::async, search));
  while (behaviour_.inside.load() < 4) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  for (const char* path : {"/live", "/ready", "/metrics", "/version"}) {
    const auto begin = std::chrono::steady_clock::now();
    EXPECT_EQ(Client(port()).ask(request("GET", path)).status, 200) << path;
    EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::milliseconds(200)) << path;
  }
  int served = 0, refused = 0;
  for (auto& future : running) {
    const Client::Answer answer = future.get();
    served += answer.status == 200;
    if (answer.status == 503) {
      ++refused;
      EXPECT_TRUE(answer.has("retry-after: 1"));
      EXPECT_NE(answer.body.find("overloaded"), std::string::npos);
    }
  }
  EXPECT_EQ(served, 8) << "4 at work and 4 in the queue";
  EXPECT_EQ(refused, 4);
}

TEST_F(ServerTest, AWaitingRequestGivesUpAtItsDeadline) {
  start({{"max_concurrency", "1"}, {"request_timeout_ms", "100"}});
  make_docs();
  behaviour_.delay_ms = 600;
  auto first = std::async(std::launch::async, [&] {
    return Client(port()).ask(request("POST", "/collections/docs/search/topk", kSearch)).status;
  });
  while (behaviour_.inside.load() < 1) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  const auto begin = std::chrono::steady_clock::now();
  const Client::Answer second =
      Client(port()).ask(request("POST", "/collections/docs/search/topk", kSearch));
  EXPECT_EQ(second.status, 408);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::milliseconds(400));
  EXPECT_EQ(first.get(), 200);
}

TEST_F(ServerTest, EveryScanOfPointsHasTheDeadlineOfItsRequest) {
  start();
  make_docs();
  Client client(port());
  const std::string filter = R"({"filter":{"must":[{"field":"a","value":1}]}})";
  int scans = 0;
  for (const std::string& each : {request("GET", "/collections/docs/points"),
                                  request("POST", "/collections/docs/points/scroll", filter),
                                  request("POST", "/collections/docs/points/count", filter),
                                  request("POST", "/collections/docs/points/delete", filter)}) {
    const Client::Answer answer = client.ask(each);
    EXPECT_EQ(answer.status, 200) << each << answer.body;
    EXPECT_EQ(behaviour_.scans_with_deadline.load(), ++scans) << each;
  }
}

TEST_F(ServerTest, ASlowBodyIsA408) {
  start({{"request_timeout_ms", "100"}});
  Client client(port());
  const Client::Answer answer = client.ask(
      "POST /distance HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\n"
      "Content-Length: 10\r\n\r\n{");
  EXPECT_EQ(answer.status, 408);
  EXPECT_TRUE(client.at_end());
}

TEST_F(ServerTest, ConnectionsAreLimited) {
  start({{"max_connections", "2"}});
  Client a(port()), b(port());
  EXPECT_EQ(a.ask(request("GET", "/live")).status, 200);
  EXPECT_EQ(b.ask(request("GET", "/live")).status, 200);
  Client c(port());
  c.send(request("GET", "/live"));
  EXPECT_EQ(c.receive().status, 0);
  EXPECT_EQ(a.ask(request("GET", "/live")).status, 200);
}

TEST_F(ServerTest, IsLiveBeforeItIsReady) {
  hold_loading_ = true;
  start();
  Client client(port());
  EXPECT_EQ(client.ask(request("GET", "/live")).status, 200);
  const Client::Answer ready = client.ask(request("GET", "/ready"));
  EXPECT_EQ(ready.status, 503);
  EXPECT_NE(ready.body.find("not_ready"), std::string::npos);
  EXPECT_EQ(client.ask(request("GET", "/collections")).status, 503);
  EXPECT_EQ(client.ask(request("GET", "/metrics")).status, 200);
  hold_loading_ = false;
  while (!server_->ready()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  EXPECT_EQ(client.ask(request("GET", "/ready")).status, 200);
  EXPECT_EQ(client.ask(request("GET", "/collections")).status, 200);
}

TEST_F(ServerTest, EndsWhenTheDatabaseCannotBeOpened) {
  fail_loading_ = true;
  start();
  EXPECT_EQ(server_->wait().code(), Code::kCorruption);
}

TEST_F(ServerTest, FinishesWhatRunsAndRefusesTheRestWhenStopping) {
  start({{"request_timeout_ms", "5000"}});
  make_docs();
  behaviour_.delay_ms = 500;
  Client idle(port());
  EXPECT_EQ(idle.ask(request("GET", "/live")).status, 200);
  Client busy(port());
  busy.send(request("POST", "/collections/docs/search/topk", kSearch));
  while (behaviour_.inside.load() < 1) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  const auto begin = std::chrono::steady_clock::now();
  std::thread stopper([&] {
    server_->request_stop();
    EXPECT_TRUE(server_->wait().ok());
  });
  const Client::Answer answer = busy.receive();
  EXPECT_EQ(answer.status, 200);
  EXPECT_TRUE(answer.has("connection: close"));
  EXPECT_TRUE(idle.at_end());
  stopper.join();
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(5));
  EXPECT_FALSE(Client(port()).connected());
}

std::string upsert_of(int id) {
  return request("POST", "/collections/docs/points",
                 R"({"points":[{"id":)" + std::to_string(id) + R"(,"values":[1,1]}]})");
}

TEST_F(ServerTest, WritesThatWaitForTheMediumAreAnsweredTogether) {
  start({{"request_timeout_ms", "10000"}});
  make_docs();
  behaviour_.commit_delay_ms = 300;
  const int before = behaviour_.begun.load();
  constexpr int kClients = 40;
  std::vector<std::unique_ptr<Client>> clients;
  for (int i = 0; i < kClients; ++i) {
    clients.push_back(std::make_unique<Client>(port()));
    clients.back()->send(upsert_of(100 + i));
  }
  while (behaviour_.begun.load() < before + kClients) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  // They hold no thread: a search is answered, and those that would block are few.
  Client other(port());
  EXPECT_EQ(other.ask(request("POST", "/collections/docs/search/topk", kSearch)).status, 200);
  for (const auto& client : clients) EXPECT_EQ(client->receive().status, 200);
  // The first alone, the others behind it; a few more where the machine was slow.
  EXPECT_GE(behaviour_.commits.load(), 2);
  EXPECT_LE(behaviour_.commits.load(), kClients / 4);
  for (const auto& client : clients) {
    EXPECT_EQ(client->ask(request("GET", "/live")).status, 200) << "goes on after its write";
  }
}

TEST_F(ServerTest, PipelinedWritesAreAnsweredInOrder) {
  start({{"request_timeout_ms", "10000"}});
  make_docs();
  behaviour_.commit_delay_ms = 5;
  constexpr int kWrites = 20;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      Client client(port());
      std::string all;
      for (int i = 0; i < kWrites; ++i) {
        all += request("PUT", "/collections/docs/points/" + std::to_string(1000 * (t + 1) + i),
                       R"({"values":[1,1]})");
      }
      client.send(all + request("GET", "/live"));
      for (int i = 0; i < kWrites; ++i) {
        const Client::Answer answer = client.receive();
        EXPECT_EQ(answer.status, 200);
        const std::string id = "\"id\":" + std::to_string(1000 * (t + 1) + i);
        EXPECT_NE(answer.body.find(id), std::string::npos) << answer.body;
      }
      EXPECT_EQ(client.receive().body.find("\"id\""), std::string::npos);
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST_F(ServerTest, WritesThatWaitForTheMediumAreAnsweredBeforeItStops) {
  start({{"request_timeout_ms", "10000"}});
  make_docs();
  behaviour_.commit_delay_ms = 300;
  const int before = behaviour_.begun.load();
  std::vector<std::unique_ptr<Client>> clients;
  for (int i = 0; i < 10; ++i) {
    clients.push_back(std::make_unique<Client>(port()));
    clients.back()->send(upsert_of(100 + i));
  }
  while (behaviour_.begun.load() < before + 10) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  server_->request_stop();
  EXPECT_TRUE(server_->wait().ok());
  for (const auto& client : clients) EXPECT_EQ(client->receive().status, 200);
}

TEST_F(ServerTest, PortInUseIsAnError) {
  start();
  SettingSources sources;
  sources.flags = {{"bind", "127.0.0.1:" + std::to_string(port())}};
  const auto second = Server::start((*load_settings(sources)).settings, {}, Logger());
  ASSERT_FALSE(second.has_value());
  EXPECT_EQ(second.error().code(), Code::kIoError);
}

TEST_F(ServerTest, EngineErrorsBecomeContractErrors) {
  start();
  make_docs();
  Client client(port());
  struct Expectation {
    Code code;
    int status;
    std::string_view name;
  };
  for (const Expectation& e : {
           Expectation{Code::kInvalidArgument, 400, "invalid_argument"},
           Expectation{Code::kResourceExhausted, 429, "resource_exhausted"},
           Expectation{Code::kDeadlineExceeded, 408, "request_timeout"},
           Expectation{Code::kUnavailable, 503, "not_ready"},
           Expectation{Code::kCorruption, 503, "not_ready"},
           Expectation{Code::kIoError, 503, "not_ready"},
           Expectation{Code::kStorageFull, 507, "storage_full"},
           Expectation{Code::kInternal, 500, "internal"},
       }) {
    behaviour_.fail_code = e.code;
    const Client::Answer answer =
        client.ask(request("PUT", "/collections/docs/points/5", R"({"values":[1,2]})"));
    EXPECT_EQ(answer.status, e.status) << e.name;
    EXPECT_NE(answer.body.find(e.name), std::string::npos) << answer.body;
    if (e.code == Code::kInternal || e.code == Code::kIoError || e.code == Code::kCorruption) {
      EXPECT_EQ(answer.body.find("/secret/path"), std::string::npos) << answer.body;
    }
  }
}

TEST_F(ServerTest, SpeaksTheContract) {
  start();
  Client client(port());
  const auto body_of = [&](std::string_view method, std::string_view path,
                           std::string_view body = {}, int status = 200) {
    const Client::Answer answer = client.ask(request(method, path, body));
    EXPECT_EQ(answer.status, status) << method << " " << path << ": " << answer.body;
    return answer.body;
  };
  EXPECT_EQ(
      body_of("POST", "/collections", R"({"name":" a.b ","dimension":2})"),
      R"({"name":"a.b","dimension":2,"strict_finite":true,"point_count":0,"metric":null,"id_type":"u64"})");
  body_of("POST", "/collections", R"({"name":"a.b","dimension":2})", 409);
  body_of("POST", "/collections", R"({"name":"b","dimension":0})", 400);
  body_of("POST", "/collections", R"({"name":"b","dimension":4097})", 400);
  body_of("POST", "/collections", R"({"name":"a..b","dimension":2})", 400);
  body_of("POST", "/collections/a.b/search", R"({"query":[1,2]})", 400);
  EXPECT_EQ(body_of("PUT", "/collections/a.b/points/18446744073709551615",
                    R"({"values":[0.1,-0.0],"payload":{"k":[1,2.0,null]}})"),
            R"({"id":18446744073709551615,"created":true})");
  EXPECT_EQ(body_of("GET", "/collections/a.b/points/18446744073709551615?ids_as_strings=true"),
            R"({"id":"18446744073709551615","values":[0.1,-0.0],"payload":{"k":[1,2.0,null]}})");
  EXPECT_EQ(body_of("POST", "/collections/a.b/points",
                    R"({"points":[{"id":"9007199254740993","values":[3,4]}]})"),
            R"({"created":1,"updated":0,"results":[{"id":9007199254740993,"created":true}]})");
  EXPECT_EQ(
      body_of("GET", "/collections/a.b/points?limit=1"),
      R"({"points":[{"id":9007199254740993}],"total":2,"next_offset":1,"next_after_id":9007199254740993})");
  EXPECT_EQ(
      body_of("GET", "/collections/a.b/points?after_id=9007199254740993&limit=1"),
      R"({"points":[{"id":18446744073709551615}],"total":2,"next_offset":null,"next_after_id":null})");
  for (const char* query :
       {"limit=0", "limit=1001", "limit=1.0", "limit=-1", "limit=01", "offset=-1", "offset=100001",
        "after_id=1&offset=1", "after_id=x", "limit=", "include_values=1"}) {
    body_of("GET", std::string("/collections/a.b/points?") + query, {}, 400);
  }
  EXPECT_EQ(
      body_of("POST", "/collections/a.b/search", R"({"query":[1,1],"metric":"dot"})"),
      R"({"id":9007199254740993,"metric":"dot","value":7.0,"mode":"exact","recall_at_k":1.0,"payload":{}})");
  for (const char* bad :
       {R"({"query":[1]})", R"({"query":[1,2,3]})", R"({"query":[1,"2"]})", R"({})",
        R"({"query":[1,2],"limit":0})", R"({"query":[1,2],"limit":1001})",
        R"({"query":[1,2],"limit":1.0})", R"({"query":[1,2],"metric":"x"})",
        R"({"query":[1,2],"mode":"x"})", R"({"query":[1,2],"target_recall":0})",
        R"({"query":[1,2],"target_recall":1.1})", R"({"query":[1,1e39]})",
        R"({"query":[1,2],"filter":{"must":[{"field":"a"}]}})",
        R"({"query":[1,2],"filter":{"must":[{"field":"a","value":1,"x":1}]}})",
        R"({"query":[1,2],"filter":{"x":[]}})",
        R"({"query":[1,2],"filter":{"minimum_should_match":1}})",
        R"({"query":[1,2],"query":[1,2]})"}) {
    body_of("POST", "/collections/a.b/search/topk", bad, 400);
  }
  EXPECT_EQ(
      body_of("POST", "/collections/a.b/points/get", R"({"ids":[5,9007199254740993]})"),
      R"({"points":[{"id":9007199254740993,"values":[3.0,4.0],"payload":{}}],"missing":[5]})");
  EXPECT_EQ(body_of("POST", "/collections/a.b/points/scroll", R"({"limit":1})"),
            R"({"points":[{"id":9007199254740993,"payload":{}}],"next_cursor":9007199254740993})");
  body_of("POST", "/collections/a.b/points/payload/set", R"({"points":[5],"payload":{"a":1}})",
          404);
  EXPECT_EQ(body_of("POST", "/collections/a.b/points/payload/set",
                    R"({"points":[9007199254740993],"payload":{"a":1}})"),
            R"({"updated":1})");
  EXPECT_EQ(body_of("POST", "/collections/a.b/points/count",
                    R"({"filter":{"must":[{"field":"a","value":1}]}})"),
            R"({"count":1})");
  EXPECT_EQ(body_of("POST", "/collections/a.b/points/payload/delete",
                    R"({"points":[9007199254740993],"keys":["a"]})"),
            R"({"updated":1})");
  EXPECT_EQ(body_of("POST", "/collections/a.b/points/delete", R"({"ids":[1,9007199254740993]})"),
            R"({"deleted":1})");
  body_of("POST", "/collections/a.b/points/delete", R"({})", 400);
  body_of("DELETE", "/collections/a.b/points/1", {}, 404);
  EXPECT_EQ(body_of("DELETE", "/collections/a.b"), R"({"name":"a.b","deleted":true})");
  body_of("GET", "/collections/a.b", {}, 404);
}

TEST_F(ServerTest, StringIdsTravelInPathsAndBodies) {
  start();
  Client client(port());
  client.ask(request("POST", "/collections", R"({"name":"s","dimension":1,"id_type":"string"})"));
  EXPECT_EQ(
      client.ask(request("PUT", "/collections/s/points/a%2Fb%20%C3%A9", R"({"values":[1]})")).body,
      "{\"id\":\"a/b \xc3\xa9\",\"created\":true}");
  EXPECT_EQ(client.ask(request("GET", "/collections/s/points/get")).status, 404)
      << "\"get\" is an id here";
  EXPECT_EQ(
      client.ask(request("POST", "/collections/s/points", R"({"points":[{"id":1,"values":[1]}]})"))
          .status,
      400);
  const std::string longest(513, 'x');
  EXPECT_EQ(client.ask(request("GET", "/collections/s/points/" + longest)).status, 400);
}

}  // namespace
}  // namespace aionbd
