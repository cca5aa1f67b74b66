"""How the tests render the chart, and the rules that every manifest must keep."""
