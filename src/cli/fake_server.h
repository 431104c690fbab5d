// A small HTTP server for the tests of the client: what it answers is a function of the test.
#pragma once

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <functional>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "base/check.h"
#include "base/mutex.h"

namespace aionbd {

/// Thread safety: safe. The handler is called from several threads.
class FakeServer {
 public:
  struct Request {
    std::string method, target, head, body;
  };
  struct Answer {
    int status = 200;
    std::string body;
    std::string more_head;     // further header lines, each with its \r\n
    bool drop = false;         // close without an answer
    bool reset = false;        // close so that the client sees a reset
    bool close_after = false;  // answer, then close without having said so
    int delay_ms = 0;
  };
  using Handler = std::function<Answer(const Request&)>;
  /// Looks at the head alone; an answer here means the body is not read.
  using HeadHandler = std::function<bool(const Request&, size_t content_length, Answer*)>;

  explicit FakeServer(Handler handler, HeadHandler head_handler = nullptr)
      : handler_(std::move(handler)), head_handler_(std::move(head_handler)) {
    listener_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    CHECK_EQ(bind(listener_, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
    CHECK_EQ(listen(listener_, 64), 0);
    socklen_t size = sizeof(address);
    getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size);
    port_ = ntohs(address.sin_port);
    acceptor_ = std::thread([this] { accept_all(); });
  }
  ~FakeServer() {
    stopping_ = true;
    shutdown(listener_, SHUT_RDWR);
    acceptor_.join();
    close(listener_);
    {
      const MutexLock lock(mutex_);
      for (const int fd : open_) shutdown(fd, SHUT_RDWR);
    }
    for (std::thread& thread : threads_) thread.join();
  }
  FakeServer(const FakeServer&) = delete;
  FakeServer& operator=(const FakeServer&) = delete;

  std::string url() const { return "http://127.0.0.1:" + std::to_string(port_); }
  int connections() const { return connections_; }

 private:
  void accept_all() {
    while (!stopping_) {
      const int fd = accept(listener_, nullptr, nullptr);
      if (fd < 0) return;
      ++connections_;
      {
        const MutexLock lock(mutex_);
        open_.push_back(fd);
      }
      threads_.emplace_back([this, fd] { serve(fd); });
    }
  }

  void serve(int fd) {
    std::string buffer;
    while (serve_one(fd, &buffer)) {
    }
    const MutexLock lock(mutex_);
    std::erase(open_, fd);
    close(fd);
  }

  static bool more(int fd, std::string* buffer) {
    char chunk[65536];
    const ssize_t got = recv(fd, chunk, sizeof(chunk), 0);
    if (got <= 0) return false;
    buffer->append(chunk, static_cast<size_t>(got));
    return true;
  }

  bool serve_one(int fd, std::string* buffer) {
    size_t end = 0;
    while ((end = buffer->find("\r\n\r\n")) == std::string::npos) {
      if (!more(fd, buffer)) return false;
    }
    Request request;
    request.head = buffer->substr(0, end + 2);
    const size_t space = request.head.find(' ');
    request.method = request.head.substr(0, space);
    request.target = request.head.substr(space + 1, request.head.find(' ', space + 1) - space - 1);
    size_t length = 0;
    const size_t field = request.head.find("Content-Length: ");
    if (field != std::string::npos) length = std::stoul(request.head.substr(field + 16));
    Answer answer;
    if (head_handler_ && head_handler_(request, length, &answer)) {
      send_answer(fd, answer);
      return false;  // with the body unread
    }
    while (buffer->size() < end + 4 + length) {
      if (!more(fd, buffer)) return false;
    }
    request.body = buffer->substr(end + 4, length);
    buffer->erase(0, end + 4 + length);
    answer = handler_(request);
    if (answer.delay_ms > 0) usleep(static_cast<useconds_t>(answer.delay_ms) * 1000);
    if (answer.reset) {
      const linger at_once{1, 0};
      setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
      return false;
    }
    if (answer.drop) return false;
    return send_answer(fd, answer) && !answer.close_after;
  }

  static bool send_answer(int fd, const Answer& answer) {
    const std::string text = "HTTP/1.1 " + std::to_string(answer.status) +
                             " X\r\nContent-Type: application/json\r\nContent-Length: " +
                             std::to_string(answer.body.size()) + "\r\n" + answer.more_head +
                             "\r\n" + answer.body;
    size_t sent = 0;
    while (sent < text.size()) {
      const ssize_t n = send(fd, text.data() + sent, text.size() - sent, MSG_NOSIGNAL);
      if (n <= 0) return false;
      sent += static_cast<size_t>(n);
    }
    return true;
  }

  const Handler handler_;
  const HeadHandler head_handler_;
  int listener_ = -1;
  uint16_t port_ = 0;
  std::atomic<bool> stopping_{false};
  std::atomic<int> connections_{0};
  std::thread acceptor_;
  std::vector<std::thread> threads_;  // touched by the acceptor until it is joined
  Mutex mutex_;
  std::vector<int> open_ GUARDED_BY(mutex_);
};

}  // namespace aionbd
