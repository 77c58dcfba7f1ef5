"""What an evaluation is made of: recordings asked, systems that answer, errors counted, and the report of them."""
