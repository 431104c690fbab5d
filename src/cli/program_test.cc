#include "cli/program.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include "cli/command.h"

namespace aionbd {
namespace {

TEST(ProgramTest, UsageErrorsExit64AndHelpExits0) {
  EXPECT_EQ(run_program({}), kExitUsage);
  EXPECT_EQ(run_program({"--help"}), kExitOk);
  EXPECT_EQ(run_program({"import", "--help"}), kExitOk);
  EXPECT_EQ(run_program({"imprt"}), kExitUsage);
  EXPECT_EQ(run_program({"--nonsense"}), kExitUsage);
  EXPECT_EQ(run_program({"import"}), kExitUsage);
  EXPECT_EQ(run_program({"import", "--collection", "c", "--batch", "0", "f"}), kExitUsage);
  EXPECT_EQ(run_program({"import", "--collection", "c", "--url", "ftp://x", "f"}), kExitUsage);
  EXPECT_EQ(run_program({"version"}), kExitOk);
}

TEST(ProgramTest, ServeRefusesKernelsThatAreNotThere) {
  ASSERT_EQ(setenv("AIONBD_SIMD", "bogus", 1), 0);
  // Were it to start, the directory would end it with another code.
  const int code = run_program({"serve", "--bind", "127.0.0.1:0", "--data-dir", "/dev/null/data"});
  unsetenv("AIONBD_SIMD");
  EXPECT_EQ(code, kExitUsage);
}

TEST(ProgramTest, NearMissesAreOffered) {
  EXPECT_EQ(near_commands("imprt").front(), "import");
  EXPECT_EQ(near_commands("server").front(), "serve");
  EXPECT_EQ(near_commands("health").front(), "healthcheck");
  EXPECT_TRUE(near_commands("zzzzzzzz").empty());
  EXPECT_TRUE(near_commands("").empty());
}

TEST(ProgramTest, HealthcheckAnswersYesOrNo) {
  EXPECT_EQ(run_program({"healthcheck", "--url", "http://127.0.0.1:1", "--quiet"}), kExitNotReady);
  EXPECT_EQ(run_program({"healthcheck", "--url", "nonsense"}), kExitUsage);
}

TEST(ProgramTest, EveryCodeHasItsExitCode) {
  EXPECT_EQ(exit_code_of(Code::kOk), 0);
  EXPECT_EQ(exit_code_of(Code::kInvalidArgument), 64);
  EXPECT_EQ(exit_code_of(Code::kCorruption), 65);
  EXPECT_EQ(exit_code_of(Code::kInternal), 70);
  EXPECT_EQ(exit_code_of(Code::kIoError), 74);
  EXPECT_EQ(exit_code_of(Code::kStorageFull), 74);
  EXPECT_EQ(exit_code_of(Code::kInUse), 75);
}

}  // namespace
}  // namespace aionbd
