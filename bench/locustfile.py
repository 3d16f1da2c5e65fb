"""Load by locust; README.md in this directory has the commands."""

from locust import FastHttpUser, constant, events, task


@events.init_command_line_parser.add_listener
def add_options(parser):
    """Add what to ask for to locust's own options."""
    parser.add_argument("--path", default="/", help="path to ask for")
    parser.add_argument(
        "--post",
        type=int,
        default=0,
        metavar="BYTES",
        help="POST a body of this size instead of GET",
    )


class Client(FastHttpUser):
    """One connection that asks again as soon as it is answered."""

    wait_time = constant(0)

    def on_start(self):
        """Make the body once."""
        self.body = bytes(self.environment.parsed_options.post)

    @task
    def ask(self):
        """Send one request; any status but a good one counts as failed."""
        path = self.environment.parsed_options.path
        if self.body:
            self.client.post(path, data=self.body)
        else:
            self.client.get(path)
